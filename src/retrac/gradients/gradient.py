"""One parameter's per-sample gradients, and the only operations that ever contract them.

A gradient is either `Dense` (its numbers) or `Factored` (what they are the product of). Both know
`dot`, `squared_norm`, `dots_and_norms` (the two at once), `sketch` and `materialise`, and how to be
added and grouped; for curvature, squares summed over samples, and second moments of both factors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from retrac.gradients.inputs import EVERY, Factors, Inputs, Plain, times
from retrac.gradients.layout import Layout
from retrac.gradients.products import by_rows, in_place
from retrac.gradients.routes import (
    Shape,
    choose,
    contraction_samples,
    norms_aside,
    tile_sizes,
    whole_samples,
)

PIECE = 2048
"""Numbers over which one matrix product sums, where results are few: BLAS leaves long sums with few
results to one core."""
NORMED = 2**16
"""Numbers of a row whose norm is taken at a time."""
FEW = 512
"""Results that are few."""


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

    @property
    def channels(self) -> tuple[int, int]:
        """Numbers that `sketch` multiplies from the left, and from the right."""
        return self.layout.size, 1

    def dot(self, directions: Tensor) -> Tensor:
        """Inner products with directions `[M, n]`, `[B, M]`."""
        return by_rows(self.values, directions)

    def squared_norm(self) -> Tensor:
        """Squared Euclidean norm of each sample's gradient, `[B]`."""
        return squared_norms_of(self.values)

    def dots_and_norms(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """`dot` and `squared_norm`."""
        return self.dot(directions), self.squared_norm()

    def sketch(self, left: Tensor | None, right: Tensor | None = None) -> Tensor:
        """The numbers multiplied by a matrix `[n, k]`, `[B, k]`; None leaves them."""
        return self.values if left is None else self.values @ left

    def materialise(self) -> Tensor:
        """The numbers, `[B, n]`."""
        return self.values

    def squares(self) -> Tensor:
        """Squares of the numbers, summed over samples, `[n]`."""
        return self.values.square().sum(0)

    def add(self, other: "Gradient") -> "Gradient":
        """Sum over two uses of the same parameter."""
        return Dense(self.values + _numbers_in(self.layout, other), self.layout)

    def grouped(self, size: int) -> "Dense":
        """Sum over consecutive groups of `size` samples, `B / size` gradients."""
        return Dense(self.values.unflatten(0, (-1, size)).sum(1), self.layout)


class Tile(NamedTuple):
    """A part of a factored gradient that is small enough to be written out."""

    band: int
    outputs: slice


@dataclass(frozen=True, eq=False)
class Factored:
    """Per-sample gradients `Σ_p b_p a_pᵀ` over positions p, in G independent groups of channels.

    Its numbers lie as `[G, bands, O, I / bands]`.

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
    def channels(self) -> tuple[int, int]:
        """Numbers that `sketch` multiplies from the left, and from the right: (C, O)."""
        return self.inputs.channels, self.b.shape[3]

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
            copied=self.inputs.copied * self.group,
            number_bytes=self.b.element_size(),
        )

    def dot(self, directions: Tensor) -> Tensor:
        """Inner products with directions `[M, n]`, `[B, M]`."""
        return self.dots_and_norms(directions)[0]

    def dots_and_norms(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products with directions `[M, n]`, `[B, M]`, and squared norms `[B]`."""
        shape, count = self.shape, len(directions)
        tensor = directions.view(count, *self._numbers)
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
        whole = self.b.new_empty(len(self), *self._numbers)
        for samples, factors in self._parts():
            if len(factors.a) == 1:  # can be written where it belongs
                in_place(factors.b.mT, factors.a[0], whole[samples, :, 0])
                continue
            for tile, values in self._tiles(factors):
                whole[samples, :, tile.band, tile.outputs] = values
        return whole.flatten(1)

    def sketch(self, left: Tensor | None, right: Tensor | None) -> Tensor:
        """Gradients of which both sides are projected before they meet, `[B, d]`.

        Args:
            left: `[C, k]`, for the channels of each position's inputs; None leaves them.
            right: `[O, l]`, for the output gradients; None leaves them.
        """
        return self.project(left, right).materialise()

    def project(self, left: Tensor | None, right: Tensor | None) -> "Factored":
        """Both sides multiplied by such matrices; the layout is no longer theirs."""
        inputs = self.inputs if left is None else self.inputs.project(left)
        b = self.b if right is None else times(self.b, right)
        return replace(self, inputs=inputs, b=b)

    def second_moments(self) -> tuple[Tensor, Tensor]:
        """`Σ a_p a_pᵀ` `[G, I, I]` and `Σ b_p b_pᵀ` `[G, O, O]`, over all samples and positions."""
        _, groups, _, width = self.inputs.shape
        inputs = self.b.new_zeros(groups, width, width)
        outputs = self.b.new_zeros(groups, self.b.shape[3], self.b.shape[3])
        step = width // self.inputs.bands
        size = whole_samples(self.shape) * self.group
        for start in range(0, len(self.b), size):
            samples = slice(start, start + size)
            a, b = self.inputs.factors(samples, self.b[samples], 1)
            rows = [part.transpose(0, 1).flatten(1, 2) for part in a]  # [G, s·P, I / bands]
            for one, left in enumerate(rows):
                across = slice(one * step, (one + 1) * step)
                for two, right in enumerate(rows[: one + 1]):  # the others are these transposed
                    inputs[:, across, two * step : (two + 1) * step] += left.mT @ right
            right = b.transpose(0, 1).flatten(1, 2)
            outputs += right.mT @ right
        return inputs.tril() + inputs.tril(-1).mT, outputs

    def squares_in(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Squares of the gradients in other bases, `Σ (outputsᵀ · Σ_p b_p a_pᵀ · inputs)²`.

        Args:
            inputs: basis of the inputs `[G, I, I]`, in columns.
            outputs: basis of the output gradients `[G, O, O]`, in columns.

        Returns:
            Summed over samples, `[G, O, I]`: in the order of `matrix_layout`.
        """
        shape = self.shape
        early = shape.positions < shape.outputs  # fewer rows to turn than those of the gradient
        total = self.b.new_zeros(shape.groups, shape.outputs, shape.inputs)
        size = whole_samples(shape) * self.group
        for start in range(0, len(self.b), size):
            samples = slice(start, start + size)
            bands, b = self.inputs.factors(samples, self.b[samples], 1)
            a = torch.cat(tuple(bands), 3)
            a = _turned(a, inputs) if early else a
            turned = Factored(Plain(a), _turned(b, outputs), self.layout, self.group)
            for _, factors in turned._parts():
                for tile, values in turned._tiles(factors):
                    values = values if early else _turned(values, inputs)
                    total[:, tile.outputs] += values.square_().sum(0)
        return total

    @property
    def matrix_layout(self) -> Layout:
        """The order `[G, O, I]`, in which the bands of each output are side by side."""
        return self.layout if self.inputs.bands == 1 else self.layout.exchanged(1, 2)

    def add(self, other: "Gradient") -> "Gradient":
        """Sum over two uses of the same parameter: a sum over the positions of both."""
        if isinstance(other, Factored) and self.layout == other.layout:
            one, two = self._factors(EVERY), other._factors(EVERY)
            if self._numbers == other._numbers:
                a = torch.cat([torch.cat(band, 2) for band in zip(one.a, two.a, strict=True)], 3)
                b = torch.cat((one.b, two.b), 2)
                return Factored(Plain(a, self.inputs.bands), b, self.layout)
        return Dense(self.materialise() + _numbers_in(self.layout, other), self.layout)

    def grouped(self, size: int) -> "Factored":
        """Sum over consecutive groups of `size` samples: their positions side by side."""
        return replace(self, group=self.group * size)

    @property
    def _numbers(self) -> tuple[int, int, int, int]:
        """(G, bands, O, I / bands)."""
        groups, outputs = self.b.shape[1], self.b.shape[3]
        bands = self.inputs.bands
        return groups, bands, outputs, self.inputs.shape[3] // bands

    def _factors(self, samples: slice) -> Factors:
        first, last, _ = samples.indices(len(self))
        rows = slice(first * self.group, last * self.group)
        return self.inputs.factors(rows, self.b[rows], self.group)

    def _parts(self) -> Iterator[tuple[slice, Factors]]:
        """The factors of as many samples as are written out together."""
        size, _ = tile_sizes(self.shape)
        for start in range(0, len(self), size):
            samples = slice(start, start + size)
            yield samples, self._factors(samples)

    def _tiles(self, factors: Factors) -> Iterator[tuple[Tile, Tensor]]:
        """Gradients written out `[b, G, o, i]`, tile by tile, each in the place of the last."""
        a, b = factors
        _, outputs = tile_sizes(self.shape)
        buffer = b.new_empty(b.shape[0] * b.shape[1] * outputs * a[0].shape[3])
        for band, part in enumerate(a):
            for output in range(0, b.shape[3], outputs):
                tile = Tile(band, slice(output, output + outputs))
                left = b.mT[:, :, tile.outputs]
                size = (*left.shape[:3], part.shape[3])
                yield tile, in_place(left, part, buffer[: prod(size)].view(size))

    def _write_out(self, directions: Tensor, dots: Tensor, norms: Tensor) -> None:
        """Contract the gradient itself, tile by tile."""
        aside = norms_aside(self.shape)
        for samples, factors in self._parts():
            if aside:
                norms[samples] = _squared_norms(*factors)
            for tile, values in self._tiles(factors):
                if len(directions):
                    part = directions[:, :, tile.band, tile.outputs]
                    dots[samples] += _inner_products(values, part)
                if not aside:
                    norms[samples] += squared_norms_of(values.flatten(1))

    def _contract(self, directions: Tensor, dots: Tensor, norms: Tensor) -> None:
        """`Σ_p ⟨D_m a_p, b_p⟩` and `⟨a aᵀ, b bᵀ⟩`, without the gradient."""
        samples = contraction_samples(self.shape, len(directions))
        for start in range(0, len(self), samples):
            some = slice(start, start + samples)
            a, b = self._factors(some)
            norms[some] = _squared_norms(a, b)
            right = b.transpose(0, 1).flatten(1, 2)
            for band, part in enumerate(a):
                left = part.transpose(0, 1).flatten(1, 2)
                products = ((left @ directions[:, :, band].mT) * right).sum(-1)  # [M, G, b·P]
                dots[some] += products.unflatten(2, (len(b), -1)).sum((1, 3)).T


Gradient = Dense | Factored


def squared_norms_of(rows: Tensor) -> Tensor:
    """Of rows `[B, n]`, `[B]`; in pieces, since `vector_norm` loses three digits of seven in a row
    of ten million numbers."""
    if rows.shape[1] <= NORMED:
        return torch.linalg.vector_norm(rows, dim=1).square()
    whole = rows.shape[1] // NORMED * NORMED
    pieces = torch.linalg.vector_norm(rows[:, :whole].unflatten(1, (-1, NORMED)), dim=2)
    rest = torch.linalg.vector_norm(rows[:, whole:], dim=1)
    return pieces.square().sum(1) + rest.square()


def _turned(rows: Tensor, basis: Tensor) -> Tensor:
    """Rows `[s, G, ·, I]` in a basis `[G, I, I]`, which is not copied for every sample."""
    return torch.einsum("sgri,gij->sgrj", rows, basis)


def _squared_norms(a: Sequence[Tensor], b: Tensor) -> Tensor:
    """Of `Σ_p b_p a_pᵀ` with factors `[B, G, P, ·]`, `[B]`, by their Gram matrices."""
    if b.shape[2] == 1:
        left = torch.stack([part.square().sum(-1) for part in a]).sum(0)
        products = left * b.square().sum(-1)
    else:
        gram = torch.stack([part @ part.mT for part in a]).sum(0)
        products = gram * (b @ b.mT)
    return products.flatten(1).sum(1).clamp(min=0)  # rounding can take a vanishing one below zero


def _inner_products(values: Tensor, directions: Tensor) -> Tensor:
    """Of gradients `[B, G, O, I]` with directions `[M, G, O, I]`, `[B, M]`."""
    batch, groups, outputs, inputs = values.shape
    if groups == 1 and batch * len(directions) >= FEW:
        return by_rows(values.flatten(1), directions.flatten(1))
    most = range(min(max(1, PIECE // inputs), outputs), 0, -1)
    rows = next(rows for rows in most if outputs % rows == 0)  # of inputs in a piece
    pieces = groups * outputs // rows
    left = values.reshape(batch, pieces, rows * inputs).transpose(0, 1)
    right = directions.reshape(len(directions), pieces, rows * inputs).permute(1, 2, 0)
    return torch.bmm(left, right).sum(0)


def _numbers_in(layout: Layout, gradient: Gradient) -> Tensor:
    """A gradient's numbers `[B, n]` in the order of another layout."""
    return layout.pack(gradient.layout.unpack(gradient.materialise()))
