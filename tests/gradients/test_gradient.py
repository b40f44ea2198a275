"""The operations on gradients, held against the gradients written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retrac.gradients import gradient as gradient_module
from retrac.gradients.gradient import Dense, Factored, squared_norms_of
from retrac.gradients.inputs import Patches, Plain
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
    return Factored(Plain(a), b, layout), torch.einsum("bgpo,bgpi->bgoi", b, a).flatten(1)


def of_patches(batch: int, groups: int, down: int = 1) -> tuple[Factored, Tensor]:
    """The same with the patches of a convolution as inputs."""
    images, size = torch.randn(batch, 2 * groups, 7, 6), ((7 - 3) // down + 1, 4)
    patches = Patches(images, size, (3, 3), (down, 1), groups=groups)
    b = torch.randn(batch, groups, size[0] * size[1], 5)
    layout = Layout.in_order((groups, patches.bands, 5, 3 // patches.bands, 3, 2))
    a, _ = patches.factors(slice(None), b, 1)
    bands = [torch.einsum("bgpo,bgpi->bgoi", b, part) for part in a]
    return Factored(patches, b, layout), torch.stack(bands, 2).flatten(1)


@pytest.fixture(
    params=[("contract", True), ("write out", False), ("write out", True), None],
    ids=["contract", "write", "write, norms aside", "choose"],
)
def route(request, monkeypatch):
    """Every route once, and whatever is chosen."""
    if request.param is not None:
        route, aside = request.param
        monkeypatch.setattr(gradient_module, "choose", lambda shape, directions: route)
        monkeypatch.setattr(gradient_module, "norms_aside", lambda shape: aside)


@random_layers
@given(shape=shapes, count=st.sampled_from([0, 1, 2, 20]), seed=seeds)
def test_factored_contracts_as_if_written_out(route, slices, shape, count, seed):
    torch.manual_seed(seed)
    gradient, written = factored(shape)
    directions = torch.randn(count, written.shape[1])
    torch.testing.assert_close(gradient.dot(directions), written @ directions.T)
    torch.testing.assert_close(gradient.squared_norm(), written.square().sum(1))
    torch.testing.assert_close(gradient.materialise(), written)
    dots, norms = gradient.dots_and_norms(directions)
    torch.testing.assert_close(dots, written @ directions.T)
    torch.testing.assert_close(norms, written.square().sum(1))
    assert len(gradient) == shape[0]


@random_layers
@given(
    batch=st.sampled_from([1, 2, 6]),
    groups=st.integers(1, 2),
    down=st.sampled_from([1, 2]),
    size=st.sampled_from([1, 2]),
    seed=seeds,
)
def test_patches_contract_as_if_written_out(route, slices, bands, batch, groups, down, size, seed):
    torch.manual_seed(seed)
    gradient, written = of_patches(batch * size, groups, down)
    gradient, written = gradient.grouped(size), written.unflatten(0, (-1, size)).sum(1)
    directions = torch.randn(3, written.shape[1])
    torch.testing.assert_close(gradient.dot(directions), written @ directions.T)
    torch.testing.assert_close(gradient.squared_norm(), written.square().sum(1))
    torch.testing.assert_close(gradient.materialise(), written)


def test_tiles_are_small(monkeypatch):
    monkeypatch.setattr("retrac.gradients.routes.TILE_BYTES", 8 * 100)
    monkeypatch.setattr("retrac.gradients.inputs.FEW", 0)
    gradient, _ = of_patches(6, 1)
    tiles = (tile for _, factors in gradient._parts() for tile in gradient._tiles(factors))
    written = [values.numel() for _, values in tiles]
    assert max(written) <= 100 and len(written) > 6


@random_layers
@given(shape=shapes, seed=seeds)
def test_dense_contracts_as_if_written_out(shape, seed):
    torch.manual_seed(seed)
    _, written = factored(shape)
    gradient = Dense(written, Layout.in_order(written.shape[1:]))
    directions = torch.randn(3, written.shape[1])
    dots, norms = gradient.dots_and_norms(directions)
    torch.testing.assert_close(dots, written @ directions.T)
    torch.testing.assert_close(norms, written.square().sum(1))
    assert gradient.materialise() is written


@random_layers
@given(shape=shapes, size=st.sampled_from([1, 2, 3]), seed=seeds)
def test_groups_are_sums(slices, shape, size, seed):
    torch.manual_seed(seed)
    gradient, written = factored((shape[0] * size, *shape[1:]))
    sums = written.unflatten(0, (-1, size)).sum(1)
    for either in (gradient, Dense(written, gradient.layout)):
        grouped = either.grouped(size)
        assert len(grouped) == shape[0]
        torch.testing.assert_close(grouped.materialise(), sums)
        torch.testing.assert_close(grouped.squared_norm(), sums.square().sum(1))
        directions = torch.randn(2, sums.shape[1])
        torch.testing.assert_close(grouped.dot(directions), sums @ directions.T)


@random_layers
@given(
    patches=st.booleans(),
    groups=st.integers(1, 2),
    left=st.sampled_from([None, 1, 3]),
    right=st.sampled_from([None, 1, 3]),
    seed=seeds,
)
def test_sketches_project_both_sides(patches, groups, left, right, seed):
    torch.manual_seed(seed)
    if patches:
        gradient, written = of_patches(4, groups)
        tensor = written.view(4, groups, 5, 9, 2)
    else:
        gradient, written = factored((4, groups, 6, 5, 2))
        tensor = written.view(4, groups, 5, 1, 2)
    one = torch.randn(2, left) if left else None
    two = torch.randn(5, right) if right else None
    expected = tensor if one is None else tensor @ one
    expected = expected if two is None else torch.einsum("bgoki,oj->bgjki", expected, two)
    torch.testing.assert_close(gradient.sketch(one, two), expected.flatten(1))


@pytest.mark.parametrize("channels", [3, 9])
@pytest.mark.parametrize("left", [None, 2])
@pytest.mark.parametrize("right", [None, 2])
def test_it_does_not_matter_how_a_convolution_lies_in_memory(bands, channels, left, right):
    """Patches are copied in runs of pixels or of channels, whichever are longer."""
    images, given = torch.randn(4, 2 * channels, 7, 6), torch.randn(4, 10, 5, 4)
    one = torch.randn(channels, left) if left else None
    two = torch.randn(5, right) if right else None
    sketches = []
    for order in (torch.contiguous_format, torch.channels_last):
        patches = Patches(images.to(memory_format=order), (5, 4), (3, 3), groups=2)
        b = given.to(memory_format=order).flatten(2).unflatten(1, (2, -1)).mT
        layout = Layout.in_order((2, patches.bands, 5, 9 // patches.bands, channels))
        gradient = Factored(patches, b, layout)
        sketches += [each.sketch(one, two) for each in (gradient, gradient.grouped(2))]
    torch.testing.assert_close(sketches[0], sketches[2])
    torch.testing.assert_close(sketches[1], sketches[3])
    torch.testing.assert_close(sketches[0].unflatten(0, (-1, 2)).sum(1), sketches[1])
    a = torch.nn.functional.unfold(images, 3).view(4, 2, channels, 9, 20)  # [B, G, C, k, P]
    a = a if one is None else torch.einsum("bgckp,cl->bglkp", a, one)
    b = given.view(4, 2, 5, 20)
    b = b if two is None else torch.einsum("bgop,ol->bglp", b, two)
    whole = torch.einsum("bgop,bgckp->bgokc", b, a)
    if gradient.project(one, two).inputs.bands > 1:
        whole = whole.unflatten(3, (3, 3)).transpose(2, 3)
    torch.testing.assert_close(sketches[0], whole.flatten(1))


@pytest.mark.parametrize("groups", [(1, 1), (2, 2), (1, 2), (2, 1)])
def test_uses_of_one_parameter_add_up(groups):
    (first, one), (second, two) = (
        factored((3, g, p, 5, 4 // g)) for g, p in zip(groups, (2, 7), strict=True)
    )
    dense = Dense(two, second.layout)
    for total in (first.add(second), first.add(dense), dense.add(first)):
        torch.testing.assert_close(total.materialise(), one + two)
        torch.testing.assert_close(total.squared_norm(), (one + two).square().sum(1))


def test_uses_add_up_across_layouts():
    """Convolutions keep channels last; layers without a rule keep the parameter's own order."""
    last = Layout((2, 3, 2, 3, 2), (0, 2, 4, 1, 3), (4, 2, 3, 3))
    own = Layout.in_order((4, 2, 3, 3))
    convolution = Factored(Plain(torch.randn(2, 2, 5, 18), 3), torch.randn(2, 2, 5, 2), last)
    other = Dense(torch.randn(2, 72), own)
    expected = last.unpack(convolution.materialise()) + own.unpack(other.materialise())
    for total in (convolution.add(other), other.add(convolution)):
        torch.testing.assert_close(total.layout.unpack(total.materialise()), expected)


def test_a_vanishing_norm_is_not_negative():
    a = torch.randn(50, 1, 1, 20, dtype=torch.float32).expand(50, 1, 4, 20)
    b = torch.randn(50, 1, 4, 20, dtype=torch.float32)
    gradient = Factored(Plain(a), b - b.mean(2, keepdim=True), Layout.in_order((20, 20)))
    assert (gradient.squared_norm() >= 0).all()


def test_norms_of_long_rows_are_exact_in_single_precision():
    rows = torch.randn(1, 10_000_001, dtype=torch.float32)
    expected = rows.double().square().sum(1)
    torch.testing.assert_close(squared_norms_of(rows).double(), expected, rtol=1e-5, atol=0)
    assert squared_norms_of(rows[:, :0]) == 0
