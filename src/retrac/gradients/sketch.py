"""Sketches: every gradient as few numbers, such that inner products are kept on average.

Both sides of a factored gradient are projected before they meet, so that the gradient is never
formed: `Σ_p (L ᵀa_p) (Rᵀ b_p)ᵀ`. With orthonormal columns, scaled so that `E[L Lᵀ] = 1`, the sketch
of an inner product is unbiased; its variance in a layer falls with the numbers given to that layer
and rises with the squared norm that is there. So numbers are given out in proportion to the layers'
shares of the squared norm: a layer that needs no more than it has is kept as it is, and one that
would get very few is left out, and costs nothing.
"""

import hashlib
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from retrac.gradients.coverage import CoverageError
from retrac.gradients.gradient import Factored, Gradient, squared_norms_of
from retrac.gradients.tape import per_sample_gradients
from retrac.gradients.views import viewed

Sizes = Mapping[str, tuple[int, int]]
"""For each parameter's name, the channels of its inputs and outputs that a sketch keeps."""


LEAST = 1 / 512
"""Of all numbers: a parameter that would get fewer gets none, unless it has no more."""
LOPSIDED = 4
"""Numbers of outputs for one of inputs, where inputs are copied for each position of a kernel."""


@dataclass(frozen=True)
class Sides:
    """What a parameter's gradient has to be projected.

    Attributes:
        copies: parts that are projected alike: positions of the kernel, groups of channels.
        inputs: channels of the input, in each of them; for a dense gradient its numbers.
        outputs: likewise of the output; for a dense gradient 1.
        share: of the squared norm, in [0, 1].
    """

    copies: int
    inputs: int
    outputs: int
    share: float

    @property
    def numbers(self) -> int:
        """How many the gradient has."""
        return self.copies * self.inputs * self.outputs


@dataclass(frozen=True, eq=False)
class Projection:
    """Random projections of all parameters' gradients; a pure function of seed and sizes. As a view
    it gives sketches.

    Attributes:
        seed: of the run; each side's stream follows from it and the parameter's name.
        sizes: in the order in which sketches lie side by side.
    """

    seed: int
    sizes: Sizes
    _matrices: dict[tuple[str, int, int, torch.device, torch.dtype], Tensor] = field(
        default_factory=dict, repr=False
    )

    def __call__(self, name: str, gradient: Gradient) -> Tensor:
        """The sketch of one parameter's gradients, `[B, d]`."""
        inputs, outputs = self.sizes[name]
        like = gradient.b if isinstance(gradient, Factored) else gradient.values
        across, over = _channels(gradient)
        return gradient.sketch(
            self._side(f"{name} inputs", across, inputs, like),
            self._side(f"{name} outputs", over, outputs, like),
        )

    def names(self, model: nn.Module) -> Container[str]:
        """Those of which a sketch keeps anything."""
        return self.sizes

    def collect(self, passes: int) -> list["Collected"]:
        """A fresh collector for each pass."""
        widths: dict[str, int] = {}
        return [Collected(self, widths) for _ in range(passes)]

    def _side(self, name: str, channels: int, kept: int, like: Tensor) -> Tensor | None:
        if kept >= channels:
            return None
        key = (name, channels, kept, like.device, like.dtype)
        if key not in self._matrices:
            self._matrices[key] = _orthonormal(self.seed, name, channels, kept).to(like)
        return self._matrices[key]


def sketches(
    model: nn.Module, per_sample_losses: Callable[[], Tensor], projection: Projection
) -> Tensor:
    """Sketches of every sample's gradient, `[B, d]`, in one forward and one backward pass.

    Their inner products and norms estimate those of the gradients.

    Args:
        model: as for `dots_and_norms`.
        per_sample_losses: runs the forward pass and returns the B losses.
        projection: of the model's trainable parameters; those it leaves out are not looked at.

    Raises:
        CoverageError: some parameter's gradient would be incomplete; it is named.
    """
    ((rows, _),) = viewed(model, per_sample_losses, projection)
    return rows


class Collected:
    """Takes gradients as they come, and gives their sketches side by side.

    Args:
        projection: to sketch them with.
        widths: numbers of each parameter's sketch, written down by all collectors of one forward
            pass: what only some of the losses depend on has gradient zero for the others.
    """

    def __init__(self, projection: Projection, widths: dict[str, int]) -> None:
        self._projection = projection
        self._widths = widths
        self._parts: dict[str, Tensor] = {}

    def __call__(self, name: str, gradient: Gradient) -> None:
        """Sketch one parameter's gradients."""
        self._parts[name] = self._projection(name, gradient)
        self._widths[name] = self._parts[name].shape[1]

    def rows(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """All sketches `[B, d]`, in the order of the projection's sizes, and their squared norms.

        Raises:
            CoverageError: some parameter was not used by the forward pass.
        """
        like = next(iter(self._parts.values()), losses)
        for name in self._projection.sizes:
            if name not in self._widths:
                raise CoverageError(
                    f"parameter {name!r} was used when the sketch was laid out, and is not now"
                )
            if name not in self._parts:
                self._parts[name] = like.new_zeros(len(losses), self._widths[name])
        rows = torch.cat([self._parts[name] for name in self._projection.sizes], 1)
        return rows, squared_norms_of(rows)


def measure_sides(model: nn.Module, *passes: Callable[[], Tensor]) -> dict[str, Sides]:
    """Where a model's gradients are, seen on a few samples.

    A parameter's share is the mean of its share in each sample's squared norm and of its share in
    the sum of them: what counts for normalised gradients, and for gradients as they are.

    Args:
        model: as for `dots_and_norms`.
        passes: each runs the forward pass on some of these samples, as `per_sample_losses` does.
    """
    found: dict[str, list[Tensor]] = {}
    geometry: dict[str, tuple[int, int, int]] = {}

    def consume(name: str, gradient: Gradient) -> None:
        found.setdefault(name, []).append(gradient.squared_norm().double())
        inputs, outputs = _channels(gradient)
        geometry[name] = (gradient.layout.size // (inputs * outputs), inputs, outputs)

    for per_sample_losses in passes:
        per_sample_gradients(model, per_sample_losses, consume)
    norms = {name: torch.cat(parts) for name, parts in found.items()}
    total = torch.stack(list(norms.values())).sum(0)
    tiny = torch.finfo(total.dtype).tiny
    names = [name for name, parameter in model.named_parameters() if name in norms]
    return {
        name: Sides(
            *geometry[name],
            share=float(
                0.5 * (norms[name] / total.clamp(min=tiny)).mean()
                + 0.5 * norms[name].sum() / total.sum().clamp(min=tiny)
            ),
        )
        for name in names
    }


def allocate(sides: Mapping[str, Sides], size: int) -> dict[str, tuple[int, int]]:
    """Give about `size` numbers to the parameters, by their shares of the squared norm.

    Args:
        sides: of all parameters.
        size: numbers of a whole sketch.

    Returns:
        What is kept of the parameters that are not left out: always of the one with most.
    """
    given: dict[str, float] = {}
    left, open_names = float(size), set(sides)
    while open_names:  # what has enough is kept whole, and leaves the rest to the others
        shares = sum(sides[name].share for name in open_names) or 1.0
        rate = left / shares
        whole = {name for name in open_names if rate * sides[name].share >= sides[name].numbers}
        if not whole:
            given |= {name: rate * sides[name].share for name in open_names}
            break
        given |= {name: float(sides[name].numbers) for name in whole}
        left -= sum(sides[name].numbers for name in whole)
        open_names -= whole
    most = max(sides, key=lambda name: sides[name].share)
    return {
        name: _split(sides[name], given[name])
        for name in sides
        if given[name] >= min(LEAST * size, sides[name].numbers) or name == most
    }


def allocate_evenly(sides: Mapping[str, Sides], numbers: int) -> dict[str, tuple[int, int]]:
    """Give every parameter about so many numbers; those that have no more are whole."""
    return {name: _split(side, numbers) for name, side in sides.items()}


def sketch_size(sides: Mapping[str, Sides], sizes: Sizes) -> int:
    """Numbers of a whole sketch, d."""
    return sum(sides[name].copies * sizes[name][0] * sizes[name][1] for name in sizes)


def _split(sides: Sides, numbers: float) -> tuple[int, int]:
    """About as many numbers as given, spread over both sides."""
    if numbers >= sides.numbers:
        return sides.inputs, sides.outputs
    across = max(1.0, numbers / sides.copies)
    lopsided = across if sides.copies == 1 else across / LOPSIDED
    inputs = min(sides.inputs, max(1, round(math.sqrt(lopsided))))
    outputs = min(sides.outputs, max(1, round(across / inputs)))
    return min(sides.inputs, max(1, round(across / outputs))), outputs


def _channels(gradient: Gradient) -> tuple[int, int]:
    if isinstance(gradient, Factored):
        return gradient.inputs.channels, gradient.b.shape[3]
    return gradient.layout.size, 1


def _orthonormal(seed: int, name: str, channels: int, kept: int) -> Tensor:
    """`[C, k]` with orthonormal columns, scaled so that its square is 1 on average; float32."""
    told = hashlib.sha256(f"{seed} {name}".encode()).digest()
    stream = torch.Generator().manual_seed(int.from_bytes(told[:8], "little") >> 1)
    drawn = torch.randn(channels, kept, generator=stream, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(drawn)
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # uniform over all bases
    return (basis * signs * math.sqrt(channels / kept)).float()
