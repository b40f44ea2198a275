"""Sketches: every gradient as few numbers, such that inner products are kept on average.

Both sides of a factored gradient are projected before they meet, so that the gradient is never
formed: `Σ_p (L ᵀa_p) (Rᵀ b_p)ᵀ`. With orthonormal columns, scaled so that `E[L Lᵀ] = 1`, the sketch
of an inner product is unbiased; its variance in a layer falls with the numbers given to that layer
and rises with the squared norm that is there.
"""

import hashlib
import math
from collections.abc import Callable, Container
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from retrac.gradients.allocation import Sizes
from retrac.gradients.coverage import CoverageError
from retrac.gradients.gradient import Factored, Gradient, squared_norms_of
from retrac.gradients.views import viewed


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
        across, over = gradient.channels
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


def _orthonormal(seed: int, name: str, channels: int, kept: int) -> Tensor:
    """`[C, k]` with orthonormal columns, scaled so that its square is 1 on average; float32."""
    told = hashlib.sha256(f"{seed} {name}".encode()).digest()
    stream = torch.Generator().manual_seed(int.from_bytes(told[:8], "little") >> 1)
    drawn = torch.randn(channels, kept, generator=stream, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(drawn)
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # uniform over all bases
    return (basis * signs * math.sqrt(channels / kept)).float()
