"""One parameter's per-sample gradients, and the only operations that ever contract them.

A gradient is either `Dense` (its numbers) or `Factored` (what they are the product of). Both know
`dot`, `squared_norm`, `materialise`, and how to be added, grouped and sliced.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from retrac.gradients.layout import Layout

SLICE_BYTES = 8 * 2**20
"""Samples are contracted in slices whose largest temporary takes about this many bytes."""


@dataclass(frozen=True, eq=False)
class Dense:
    """Per-sample gradients as they are.

    Attributes:
        values: `[B, n]`.
        layout: the order of the n numbers.
    """

    values: Tensor
    layout: Layout

    def __len__(self) -> int:
        return len(self.values)

    def dot(self, directions: Tensor) -> Tensor:
        """Inner products with directions `[M, n]`, `[B, M]`."""
        return self.values @ directions.T

    def squared_norm(self) -> Tensor:
        """Squared Euclidean norm of each sample's gradient, `[B]`."""
        return torch.linalg.vector_norm(self.values, dim=1).square()

    def materialise(self) -> Tensor:
        """The numbers, `[B, n]`."""
        return self.values

    def add(self, other: "Gradient") -> "Gradient":
        """Sum over two uses of the same parameter."""
        return Dense(self.values + _numbers_in(self.layout, other), self.layout)

    def grouped(self, size: int) -> "Dense":
        """Sum over consecutive groups of `size` samples, `B / size` gradients."""
        return Dense(self.values.unflatten(0, (-1, size)).sum(1), self.layout)

    def slices(self, multiple: int = 1) -> Iterator["Dense"]:
        """Parts of the batch, in order, small enough to contract: here the whole."""
        yield self


@dataclass(frozen=True, eq=False)
class Factored:
    """Per-sample gradients `Σ_p b_p a_pᵀ` over positions p, in G independent groups of channels.

    Attributes:
        inputs: layer inputs `[B, G, *P, *I]`; may be a view of overlapping windows, which are
            copied out only for the slice of samples at hand.
        b: output gradients `[B, G, P, O]`.
        layout: the order of the n = G·O·I numbers, slowest axis first.
    """

    inputs: Tensor
    b: Tensor
    layout: Layout

    def __len__(self) -> int:
        return len(self.b)

    @cached_property
    def a(self) -> Tensor:
        """Layer inputs `[B, G, P, I]`."""
        return self.inputs.reshape(*self.b.shape[:3], -1)

    def dot(self, directions: Tensor) -> Tensor:
        """Inner products with directions `[M, n]`, `[B, M]`.

        Contracts inputs with directions first where that takes fewer operations than forming the
        gradient: P·M against P + M per number of it.
        """
        positions, count = self.b.shape[2], len(directions)
        if self._is_materialised or not 0 < positions * count <= positions + count:
            return self._gradient @ directions.T
        groups, width = self.a.shape[1], self.a.shape[3]
        tensor = directions.view(count, groups, -1, width).permute(1, 0, 2, 3).flatten(1, 2)
        projected = self.a @ tensor.transpose(-1, -2)  # [B, G, P, M·O]
        return torch.einsum("bgpmo,bgpo->bm", projected.unflatten(-1, (count, -1)), self.b)

    def squared_norm(self) -> Tensor:
        """Squared Euclidean norm of each sample's gradient, `[B]`.

        By the Gram matrices of inputs and output gradients where positions are few.
        """
        positions, outputs = self.b.shape[2:]
        width = self.a.shape[3]
        if self._is_materialised or positions * (width + outputs) > width * outputs:
            return torch.linalg.vector_norm(self._gradient, dim=1).square()
        if positions == 1:
            return (self.a.square().sum(-1) * self.b.square().sum(-1)).flatten(1).sum(1)
        gram_a = self.a @ self.a.transpose(-1, -2)
        gram_b = self.b @ self.b.transpose(-1, -2)
        # Rounding can take a vanishing norm below zero.
        return (gram_a * gram_b).flatten(1).sum(1).clamp(min=0)

    def materialise(self) -> Tensor:
        """The numbers, `[B, n]`."""
        return self._gradient

    def add(self, other: "Gradient") -> "Gradient":
        """Sum over two uses of the same parameter: a sum over the positions of both."""
        if (
            isinstance(other, Factored)
            and self.layout == other.layout
            and self.a.shape[1::2] == other.a.shape[1::2]
        ):
            a, b = torch.cat((self.a, other.a), 2), torch.cat((self.b, other.b), 2)
            return Factored(a, b, self.layout)
        return Dense(self.materialise() + _numbers_in(self.layout, other), self.layout)

    def grouped(self, size: int) -> "Factored":
        """Sum over consecutive groups of `size` samples: their positions side by side."""
        if size == 1:
            return self
        a, b = (
            factor.unflatten(0, (-1, size)).transpose(1, 2).flatten(2, 3)
            for factor in (self.a, self.b)
        )
        return Factored(a, b, self.layout)

    def slices(self, multiple: int = 1) -> Iterator["Factored"]:
        """Parts of the batch, in order, small enough to contract.

        Args:
            multiple: every part has a multiple of this many samples.
        """
        numbers = max(self.layout.size // multiple, self.inputs[0].numel())
        step = max(1, SLICE_BYTES // (numbers * self.b.element_size() * multiple)) * multiple
        for inputs, b in zip(self.inputs.split(step), self.b.split(step), strict=True):
            yield Factored(inputs, b, self.layout)

    @property
    def _is_materialised(self) -> bool:
        return "_gradient" in self.__dict__

    @cached_property
    def _gradient(self) -> Tensor:
        return (self.b.transpose(-1, -2) @ self.a).flatten(1)


Gradient = Dense | Factored


def _numbers_in(layout: Layout, gradient: Gradient) -> Tensor:
    """A gradient's numbers `[B, n]` in the order of another layout."""
    return layout.pack(gradient.layout.unpack(gradient.materialise()))
