"""What each way of contracting a factored gradient takes, and so which one is taken.

Counted in operations and in bytes moved, which matter as much: a gradient that does not fit into
the cache is slow to write, and so are directions that are read again for every few samples.

Routes differ in rounding. So a route follows from sizes and a usual machine's balance alone, never
from the speed of the machine at hand.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

TILE_BYTES = 64 * 2**20
"""The largest temporary of a contraction."""
COPIED_BYTES = 128 * 2**20
"""Of the inputs that are copied at a time: as many samples as possible, since directions are read
again for the next ones."""
TEMPORARY_BYTES = 2 * TILE_BYTES + COPIED_BYTES
"""Of a contraction, all together."""

CACHED = 0.5
"""What a byte of a temporary counts, read soon after it was written, in bytes of memory."""

Route = Literal["contract", "write out", "project", "vector"]
"""`contract`: inputs with directions, norms by Gram matrices; the gradient is never formed.
`write out`: the gradient in tiles, each contracted before the next takes its place.
`project`: both sides to the few channels of a sketch, then written out.
`vector`: a dense gradient, which is there already."""


@dataclass(frozen=True)
class Work:
    """What a computation takes.

    Attributes:
        operations: additions and multiplications.
        bytes: read and written in memory.
    """

    operations: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.operations + other.operations, self.bytes + other.bytes)


@dataclass(frozen=True)
class Machine:
    """How fast a machine is.

    Attributes:
        operations: per second, in matrix products of the size of a layer's.
        bytes: per second, of what a product reads from memory.
    """

    operations: float
    bytes: float

    def seconds(self, work: Work) -> float:
        """Predicted time: moving and computing hardly overlap in products as thin as these."""
        return work.operations / self.operations + work.bytes / self.bytes


USUAL = Machine(operations=80e9, bytes=10e9)
"""Two processor cores. What decides is the ratio, 8 operations per byte; GPUs are near 12."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a factored gradient.

    Attributes:
        batch: gradients B.
        groups: of channels, G.
        positions: P of one gradient.
        inputs: numbers I per position and group.
        outputs: output gradients O per position and group.
        pixels: places of one gradient where the channels of its inputs lie; for plain inputs P.
        channels: numbers of such a place per group; for plain inputs I.
        bands: parts in which the inputs are had.
        copied: numbers of one gradient's inputs that are copied for that.
        number_bytes: of one number.
    """

    batch: int
    groups: int
    positions: int
    inputs: int
    outputs: int
    pixels: int
    channels: int
    bands: int = 1
    copied: int = 0
    number_bytes: int = 4

    @property
    def numbers(self) -> int:
        """n, of one gradient."""
        return self.groups * self.inputs * self.outputs

    @property
    def operations(self) -> int:
        """Of writing all gradients out, or of the layer's own forward pass."""
        return 2 * self.batch * self.numbers * self.positions

    @property
    def rows(self) -> int:
        """Positions of all gradients and groups, B·G·P."""
        return self.batch * self.groups * self.positions


def choose(shape: Shape, directions: int) -> Route:
    """The cheapest route to inner products with so many directions, and norms."""
    routes = contractions(shape, directions)
    return min(routes, key=lambda route: USUAL.seconds(routes[route]))


def contractions(shape: Shape, directions: int) -> dict[Route, Work]:
    """What each route takes to inner products with so many directions, and norms."""
    return {
        "contract": contracted(shape, directions),
        "write out": written_out(shape, directions),
    }


def contracted(shape: Shape, directions: int) -> Work:
    """Inputs times directions, `[B·P, I] @ [I, O]` for each, and norms by Gram matrices."""
    slices = ceil(shape.batch / contraction_samples(shape, directions))
    products = shape.rows * directions * shape.outputs
    return gram(shape) + Work(
        2 * products * (shape.inputs + 1),
        _factor_bytes(shape, reads=2)
        + _direction_bytes(shape, directions, slices)
        + CACHED * 4 * products * shape.number_bytes,
    )


def written_out(shape: Shape, directions: int) -> Work:
    """The gradient `[O, P] @ [P, I]` in tiles, each times directions; and norms."""
    samples, outputs = tile_sizes(shape)
    numbers = shape.batch * shape.numbers
    touched = 2 if directions else 1
    return Work(
        2 * numbers * (shape.positions + directions),
        _factor_bytes(shape, reads=ceil(shape.outputs / outputs))
        + _direction_bytes(shape, directions, ceil(shape.batch / samples))
        + CACHED * touched * numbers * shape.number_bytes,
    ) + (gram(shape) if norms_aside(shape) else squared(shape))


def norms_aside(shape: Shape) -> bool:
    """Whether the norms of written gradients are had for less than reading them again."""
    return USUAL.seconds(gram(shape)) < USUAL.seconds(squared(shape))


def gram(shape: Shape) -> Work:
    """Norms by `P × P` matrices of inputs and of output gradients."""
    products = shape.rows * shape.positions if shape.positions > 1 else 0
    sides = shape.inputs + shape.outputs
    return Work(
        2 * max(products, shape.rows) * sides + 2 * products,
        CACHED * 4 * products * shape.number_bytes,
    )


def squared(shape: Shape) -> Work:
    """Norms of the written gradient, tile by tile."""
    numbers = shape.batch * shape.numbers
    return Work(2 * numbers, CACHED * numbers * shape.number_bytes)


def projected(shape: Shape, small: Shape) -> Work:
    """Both sides to the channels of a smaller gradient, which is then written out."""
    pixels = shape.batch * shape.groups * shape.pixels
    operations, numbers = 0, 0
    if small.channels < shape.channels:
        operations += 2 * pixels * shape.channels * small.channels
        numbers += pixels * (shape.channels + small.channels)
    if small.outputs < shape.outputs:
        operations += 2 * shape.rows * shape.outputs * small.outputs
        numbers += shape.rows * (shape.outputs + small.outputs)
    return Work(operations, numbers * shape.number_bytes) + written_out(small, 0)


def dense(batch: int, numbers: int, directions: int, number_bytes: int) -> Work:
    """Vectors times directions, and squared; both are first put beside those of other layers."""
    return Work(
        2 * batch * numbers * (directions + 1), 3 * (batch + directions) * numbers * number_bytes
    )


def tile_sizes(shape: Shape) -> tuple[int, int]:
    """Samples and outputs of the parts in which a gradient is written out, band by band.

    As many samples as possible, since directions are read once for all samples of a part.
    """
    width = shape.groups * shape.inputs // shape.bands
    copies = COPIED_BYTES // shape.number_bytes // max(1, shape.copied)
    room = max(1, TILE_BYTES // shape.number_bytes)
    samples = _evenly(shape.batch, min(copies, room // max(1, width)))
    return samples, _evenly(shape.outputs, room // max(1, samples * width))


def _evenly(whole: int, most: int) -> int:
    """The size of equal parts of at most so many, so that no small one is left over."""
    whole = max(1, whole)
    return ceil(whole / ceil(whole / max(1, min(whole, most))))


def contraction_samples(shape: Shape, directions: int) -> int:
    """Samples that are contracted at a time, so that temporaries stay small."""
    room = max(1, TILE_BYTES // shape.number_bytes)
    widest = max(directions * shape.outputs, shape.positions)
    products = shape.groups * shape.positions * widest
    return max(1, min(shape.batch, room // max(1, products, shape.copied)))


def whole_samples(shape: Shape) -> int:
    """Gradients of which the whole inputs, all bands side by side, are copied at a time."""
    room = max(1, TILE_BYTES // shape.number_bytes)
    numbers = shape.groups * shape.positions * shape.inputs
    return max(1, min(shape.batch, room // max(1, numbers)))


def _factor_bytes(shape: Shape, reads: int) -> float:
    """Inputs and output gradients from memory; copies are written, and read in the cache."""
    pixels = shape.batch * shape.groups * shape.pixels * shape.channels
    again = CACHED * shape.rows * shape.inputs * (reads if shape.copied else reads - 1)
    copies = CACHED * shape.batch * shape.copied
    return (pixels + shape.rows * shape.outputs + again + copies) * shape.number_bytes


def _direction_bytes(shape: Shape, directions: int, slices: int) -> float:
    """Directions are too many for the cache: read for every slice of the batch."""
    return slices * directions * shape.numbers * shape.number_bytes
