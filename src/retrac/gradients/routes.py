"""What a contraction of a factored gradient costs, and so which way it takes.

Counted in operations and in bytes moved: a gradient that does not fit into the cache is slow to
write, and so are directions that are read again for every few samples.
"""

from dataclasses import dataclass

TILE_BYTES = 16 * 2**20
"""The largest temporary of a contraction; some of them fit into the cache together."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a factored gradient.

    Attributes:
        batch: gradients B.
        groups: of channels, G.
        positions: P of one gradient.
        inputs: numbers I per position and group.
        outputs: output gradients O per position and group.
        bands: parts of the inputs that can be had alone.
        is_copied: whether having the inputs costs a copy.
    """

    batch: int
    groups: int
    positions: int
    inputs: int
    outputs: int
    bands: int
    is_copied: bool

    @property
    def numbers(self) -> int:
        """n, of one gradient."""
        return self.groups * self.inputs * self.outputs


def contracts(shape: Shape, directions: int) -> bool:
    """Whether inner products take fewer operations without the gradient.

    Per number of it: P·M to multiply inputs with directions first, against P + M.
    """
    positions = shape.positions
    return 0 < positions * directions <= positions + directions


def uses_gram_matrices(shape: Shape) -> bool:
    """Whether a norm takes fewer operations by `P × P` matrices than by the gradient."""
    return shape.positions * (shape.inputs + shape.outputs) <= shape.inputs * shape.outputs


def tile_sizes(shape: Shape, bytes_per_number: int) -> tuple[int, int, int]:
    """Samples, bands and outputs of the parts in which a gradient is written out.

    As many samples as possible, since directions are read once for all samples of a part.
    """
    room = max(1, TILE_BYTES // bytes_per_number)
    samples, bands = shape.batch, shape.bands
    patches = shape.groups * shape.positions * shape.inputs
    if shape.is_copied and shape.batch * patches > room:
        bands = 1
        samples = max(1, min(shape.batch, room // (patches // shape.bands)))
    column = samples * shape.groups * shape.inputs * bands // shape.bands
    outputs = max(1, min(shape.outputs, room // column))
    return samples, bands, outputs
