"""The operations on gradients, held against the gradients written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retrac.gradients.gradient import Dense, Factored
from retrac.gradients.layout import Layout

from .agreement import random_layers, seeds

sizes = st.integers(1, 5)
shapes = st.tuples(
    st.sampled_from([1, 2, 4, 6]), st.integers(1, 3), st.integers(1, 9), sizes, sizes
)


def factored(shape: tuple[int, ...]) -> tuple[Factored, Tensor]:
    """Random factors, and `Σ_p b_p a_pᵀ` written out `[B, n]`."""
    batch, groups, positions, outputs, inputs = shape
    a = torch.randn(batch, groups, positions, inputs)
    b = torch.randn(batch, groups, positions, outputs)
    layout = Layout.in_order((groups * outputs, inputs))
    return Factored(a, b, layout), torch.einsum("bgpo,bgpi->bgoi", b, a).flatten(1)


@random_layers
@given(shape=shapes, count=st.sampled_from([0, 1, 2, 20]), fresh=st.booleans(), seed=seeds)
def test_factored_contracts_as_if_written_out(shape, count, fresh, seed):
    torch.manual_seed(seed)
    gradient, written = factored(shape)
    directions = torch.randn(count, written.shape[1])
    if not fresh:
        gradient.materialise()  # may change the route
    torch.testing.assert_close(gradient.dot(directions), written @ directions.T)
    torch.testing.assert_close(gradient.squared_norm(), written.square().sum(1))
    torch.testing.assert_close(gradient.materialise(), written)
    assert len(gradient) == shape[0]


@random_layers
@given(shape=shapes, seed=seeds)
def test_dense_contracts_as_if_written_out(shape, seed):
    torch.manual_seed(seed)
    _, written = factored(shape)
    gradient = Dense(written, Layout.in_order(written.shape[1:]))
    directions = torch.randn(3, written.shape[1])
    torch.testing.assert_close(gradient.dot(directions), written @ directions.T)
    torch.testing.assert_close(gradient.squared_norm(), written.square().sum(1))
    assert gradient.materialise() is written


@random_layers
@given(shape=shapes, size=st.sampled_from([1, 2, 3]), seed=seeds)
def test_groups_and_slices(slices, shape, size, seed):
    torch.manual_seed(seed)
    gradient, written = factored((shape[0] * size, *shape[1:]))
    sums = written.unflatten(0, (-1, size)).sum(1)
    for either in (gradient, Dense(written, gradient.layout)):
        parts = list(either.slices(multiple=size))
        assert sum(map(len, parts)) == len(either)
        assert all(len(part) % size == 0 for part in parts)
        torch.testing.assert_close(torch.cat([part.materialise() for part in parts]), written)
        grouped = torch.cat([part.grouped(size).materialise() for part in parts])
        torch.testing.assert_close(grouped, sums)
        norms = torch.cat([part.grouped(size).squared_norm() for part in parts])
        torch.testing.assert_close(norms, sums.square().sum(1))


def test_slices_are_small(monkeypatch):
    monkeypatch.setattr("retrac.gradients.gradient.SLICE_BYTES", 8 * 2 * 60)
    gradient, _ = factored((6, 1, 12, 3, 5))  # sixty numbers of input a sample
    assert [len(part) for part in gradient.slices()] == [2, 2, 2]


@pytest.mark.parametrize("groups", [(1, 1), (2, 2), (1, 2), (2, 1)])
def test_uses_of_one_parameter_add_up(groups):
    (first, one), (second, two) = (
        factored((3, g, p, 4 // g, 5)) for g, p in zip(groups, (2, 7), strict=True)
    )
    dense = Dense(two, second.layout)
    for total in (first.add(second), first.add(dense), dense.add(first)):
        torch.testing.assert_close(total.materialise(), one + two)
        torch.testing.assert_close(total.squared_norm(), (one + two).square().sum(1))


def test_uses_add_up_across_layouts():
    """Convolutions keep channels last; layers without a rule keep the parameter's own order."""
    last = Layout((4, 3, 3, 2), (0, 3, 1, 2))
    own = Layout.in_order((4, 2, 3, 3))
    convolution = Factored(torch.randn(2, 1, 5, 18), torch.randn(2, 1, 5, 4), last)
    other = Dense(torch.randn(2, 72), own)
    expected = last.unpack(convolution.materialise()) + own.unpack(other.materialise())
    for total in (convolution.add(other), other.add(convolution)):
        torch.testing.assert_close(total.layout.unpack(total.materialise()), expected)


def test_a_vanishing_norm_is_not_negative():
    a = torch.randn(50, 1, 1, 20, dtype=torch.float32).expand(50, 1, 4, 20)
    b = torch.randn(50, 1, 4, 20, dtype=torch.float32)
    gradient = Factored(a, b - b.mean(2, keepdim=True), Layout.in_order((20, 20)))
    assert (gradient.squared_norm() >= 0).all()
