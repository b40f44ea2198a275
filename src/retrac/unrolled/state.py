"""Where a training stands, as vectors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class State(NamedTuple):
    """All that one step of training hands to the next, of P trainable parameters.

    Attributes:
        weights: `[P]`.
        moments: `[M, P]`, what the optimiser remembers: exp_avg and exp_avg_sq of Adam, the buffer
            of momentum, or nothing; zeros before its first step.
        average: `[P]`, the moving average of the weights; empty, `[0]`, where none is kept.
        updates: steps that the optimiser has taken.
        averaged: steps that the average has taken.
    """

    weights: Tensor
    moments: Tensor
    average: Tensor
    updates: int
    averaged: int

    @property
    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What has derivatives."""
        return self.weights, self.moments, self.average

    def with_vectors(self, weights: Tensor, moments: Tensor, average: Tensor) -> "State":
        """With others."""
        return State(weights, moments, average, self.updates, self.averaged)

    @property
    def generating(self) -> Tensor:
        """The weights that generate, `[P]`: the average where one is kept."""
        return self.average if self.average.numel() else self.weights

    @property
    def nbytes(self) -> int:
        """Of its vectors."""
        return sum(vector.nbytes for vector in self.vectors)


@dataclass(frozen=True)
class Layout:
    """The order of a network's trainable parameters in one vector: as it lists them.

    Attributes:
        shapes: of each.
    """

    shapes: tuple[torch.Size, ...]

    @staticmethod
    def of(parameters: Iterable[nn.Parameter]) -> "Layout":
        """Of some parameters, in their order."""
        return Layout(tuple(parameter.shape for parameter in parameters))

    @property
    def size(self) -> int:
        """P."""
        return sum(shape.numel() for shape in self.shapes)

    def vector(self, tensors: Sequence[Tensor]) -> Tensor:
        """`[P]` of one tensor for each parameter."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def tensors(self, vector: Tensor) -> list[Tensor]:
        """The way back: views of `[P]`."""
        parts = vector.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    @torch.no_grad()
    def write(self, vector: Tensor, tensors: Iterable[Tensor]) -> None:
        """Copy `[P]` into one tensor for each parameter."""
        for tensor, part in zip(tensors, self.tensors(vector), strict=True):
            tensor.copy_(part)
