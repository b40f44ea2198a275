"""One parameter's per-sample gradients, and the only operations that ever contract them.

A gradient is either `Dense` (its numbers) or `Factored` (what they are the product of). Both know
`dot`, `squared_norm`, `dots_and_norms` (the two at once), `sketch` and `materialise`, and how to be
added and grouped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from retrac.gradients.inputs import EVERY, Inputs, Plain
from retrac.gradients.layout import Layout
from retrac.gradients.routes import Shape, choose, contraction_samples, tile_sizes

PIECE = 2048
"""Numbers over which one matrix product sums: long sums are left to one core by BLAS."""


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

    def dots_and_norms(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """`dot` and `squared_norm`."""
        return self.dot(directions), self.squared_norm()

    def sketch(self, left: Tensor | None, right: Tensor | None = None) -> Tensor:
        """The numbers multiplied by a matrix `[n, k]`, `[B, k]`; None leaves them."""
        return self.values if left is None else self.values @ left

    def materialise(self) -> Tensor:
        """The numbers, `[B, n]`."""
        return self.values

    def add(self, other: "Gradient") -> "Gradient":
        """Sum over two uses of the same parameter."""
        return Dense(self.values + _numbers_in(self.layout, other), self.layout)

    def grouped(self, size: int) -> "Dense":
        """Sum over consecutive groups of `size` samples, `B / size` gradients."""
        return Dense(self.values.unflatten(0, (-1, size)).sum(1), self.layout)


class Tile(NamedTuple):
    """A part of a factored gradient that is small enough to be written out."""

    samples: slice
    bands: slice
    inputs: slice
    outputs: slice


@dataclass(frozen=True, eq=False)
class Factored:
    """Per-sample gradients `Σ_p a_p b_pᵀ` over positions p, in G independent groups of channels.

    Attributes:
        inputs: layer inputs `[B, G, P, I]`.
        b: output gradients `[B, G, P, O]`.
        layout: the order of the n = G·I·O numbers, slowest axis first.
        group: consecutive samples that are summed into one gradient.
    """

    inputs: Inputs
    b: Tensor
    layout: Layout
    group: int = 1

    def __len__(self) -> int:
        return len(self.b) // self.group

    @property
    def shape(self) -> Shape:
        """The sizes that decide what a contraction costs."""
        _, groups, positions, width = self.inputs.shape
        return Shape(
            batch=len(self),
            groups=groups,
            positions=positions * self.group,
            inputs=width,
            outputs=self.b.shape[3],
            pixels=self.inputs.pixels * self.group,
            channels=self.inputs.channels,
            bands=self.inputs.bands,
            is_copied=self.inputs.is_copied,
            number_bytes=self.b.element_size(),
        )

    def dot(self, directions: Tensor) -> Tensor:
        """Inner products with directions `[M, n]`, `[B, M]`."""
        return self.dots_and_norms(directions)[0]

    def dots_and_norms(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products with directions `[M, n]`, `[B, M]`, and squared norms `[B]`."""
        shape, count = self.shape, len(directions)
        tensor = directions.view(count, shape.groups, shape.inputs, shape.outputs)
        dots, norms = self.b.new_zeros(shape.batch, count), self.b.new_zeros(shape.batch)
        if choose(shape, count) == "contract":
            self._contract(tensor, dots, norms)
        else:
            self._write_out(tensor, dots, norms)
        return dots, norms

    def squared_norm(self) -> Tensor:
        """Squared Euclidean norm of each sample's gradient, `[B]`."""
        return self.dots_and_norms(self.b.new_empty(0, self.layout.size))[1]

    def materialise(self) -> Tensor:
        """The numbers, `[B, n]`."""
        shape = self.shape
        whole = self.b.new_empty(shape.batch, shape.groups, shape.inputs, shape.outputs)
        for tile, values in self._tiles():
            whole[tile.samples, :, tile.inputs, tile.outputs] = values
        return whole.flatten(1)

    def sketch(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        """Gradients of which both sides are projected before they meet, `[B, d]`.

        Args:
            left: `[C, k]`, for the channels of each position's inputs; None leaves them.
            right: `[O, l]`, for the output gradients; None leaves them.
        """
        inputs = self.inputs if left is None else self.inputs.project(left)
        b = self.b if right is None else self.b @ right
        return replace(self, inputs=inputs, b=b).materialise()

    def add(self, other: "Gradient") -> "Gradient":
        """Sum over two uses of the same parameter: a sum over the positions of both."""
        if isinstance(other, Factored) and self.layout == other.layout:
            one, two = self._whole(), other._whole()
            if one[0].shape[1::2] == two[0].shape[1::2]:
                a, b = (torch.cat(sides, 2) for sides in zip(one, two, strict=True))
                return Factored(Plain(a), b, self.layout)
        return Dense(self.materialise() + _numbers_in(self.layout, other), self.layout)

    def grouped(self, size: int) -> "Factored":
        """Sum over consecutive groups of `size` samples: their positions side by side."""
        return replace(self, group=self.group * size)

    def _whole(self) -> tuple[Tensor, Tensor]:
        return self._factors(Tile(EVERY, EVERY, EVERY, EVERY))

    def _factors(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Inputs `[b, G, P, i]` and output gradients `[b, G, P, o]` of a part."""
        first, last, _ = tile.samples.indices(len(self))
        rows = slice(first * self.group, last * self.group)
        a, b = self.inputs.take(rows, tile.bands), self.b[rows, :, :, tile.outputs]
        if self.group == 1:
            return a, b
        a, b = (x.unflatten(0, (-1, self.group)).transpose(1, 2).flatten(2, 3) for x in (a, b))
        return a, b

    def _tiles(self) -> Iterator[tuple[Tile, Tensor]]:
        """The gradient written out `[b, G, i, o]`, part by part."""
        shape = self.shape
        samples, bands, outputs = tile_sizes(shape)
        width = shape.inputs // shape.bands
        for sample in range(0, shape.batch, samples):
            for band in range(0, shape.bands, bands):
                tile = Tile(
                    slice(sample, sample + samples),
                    slice(band, band + bands),
                    slice(band * width, (band + bands) * width),
                    EVERY,
                )
                a, b = self._factors(tile)
                for output in range(0, shape.outputs, outputs):
                    part = slice(output, output + outputs)
                    yield tile._replace(outputs=part), a.transpose(2, 3) @ b[..., part]

    def _write_out(self, directions: Tensor, dots: Tensor, norms: Tensor) -> None:
        """Contract the gradient itself, tile by tile."""
        for tile, values in self._tiles():
            if len(directions):
                part = directions[:, :, tile.inputs, tile.outputs]
                dots[tile.samples] += _inner_products(values, part)
            norms[tile.samples] += torch.linalg.vector_norm(values.flatten(1), dim=1).square()

    def _contract(self, directions: Tensor, dots: Tensor, norms: Tensor) -> None:
        """`Σ_p ⟨a_pᵀ D_m, b_p⟩` and `⟨a aᵀ, b bᵀ⟩`, without the gradient."""
        samples = contraction_samples(self.shape, len(directions))
        for start in range(0, len(self), samples):
            part = slice(start, start + samples)
            a, b = self._factors(Tile(part, EVERY, EVERY, EVERY))
            norms[part] = _squared_norms(a, b)
            batch, groups, positions, _ = a.shape
            left, right = (side.transpose(0, 1).flatten(1, 2) for side in (a, b))
            products = ((left @ directions) * right).sum(-1)  # [M, G, b·P]
            dots[part] = products.view(len(directions), groups, batch, positions).sum((1, 3)).T


Gradient = Dense | Factored


def _squared_norms(a: Tensor, b: Tensor) -> Tensor:
    """Of `Σ_p a_p b_pᵀ` with factors `[B, G, P, ·]`, `[B]`, by their Gram matrices."""
    if a.shape[2] == 1:
        products = a.square().sum(-1) * b.square().sum(-1)
    else:
        products = (a @ a.transpose(-1, -2)) * (b @ b.transpose(-1, -2))
    return products.flatten(1).sum(1).clamp(min=0)  # rounding can take a vanishing one below zero


def _inner_products(values: Tensor, directions: Tensor) -> Tensor:
    """Of gradients `[B, G, I, O]` with directions `[M, G, I, O]`, `[B, M]`; summed in pieces."""
    batch, groups, inputs, outputs = values.shape
    rows = 1  # of outputs in a piece, where they lie side by side
    if directions.stride(2) == outputs:
        most = range(min(max(1, PIECE // outputs), inputs), 0, -1)
        rows = next(rows for rows in most if inputs % rows == 0)
    pieces = groups * inputs // rows
    left = values.reshape(batch, pieces, rows * outputs).transpose(0, 1)
    right = directions.reshape(len(directions), pieces, rows * outputs).permute(1, 2, 0)
    return torch.bmm(left, right).sum(0)


def _numbers_in(layout: Layout, gradient: Gradient) -> Tensor:
    """A gradient's numbers `[B, n]` in the order of another layout."""
    return layout.pack(gradient.layout.unpack(gradient.materialise()))
