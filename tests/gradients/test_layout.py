import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from retrac.gradients import Directions, Layout, dots_and_norms

from .agreement import directions_for, random_layers, random_losses


@st.composite
def layouts(draw):
    axes = draw(st.permutations(range(draw(st.integers(0, 4)))))
    shape = draw(st.lists(st.integers(1, 4), min_size=len(axes), max_size=len(axes)))
    own = [shape[axis] for axis in axes]
    joined = draw(st.integers(0, max(0, len(own) - 1)))
    if joined:
        own[joined - 1 : joined + 1] = [own[joined - 1] * own[joined]]
    return Layout(tuple(shape), tuple(axes), tuple(own))


@random_layers
@given(layout=layouts(), count=st.integers(0, 3))
def test_there_and_back(layout, count):
    rows = torch.randn(count, layout.size)
    tensors = layout.unpack(rows)
    assert tensors.shape == (count, *layout.parameter)
    assert torch.equal(layout.pack(tensors), rows)
    if len(layout.parameter) == len(layout.shape):
        assert tensors.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()


def test_what_lies_last_in_memory_runs_fastest():
    layout = Layout((2, 5, 3), (0, 2, 1), (2, 3, 5))
    rows = torch.arange(30.0)[None]
    assert layout.unpack(rows)[0, 1, 2, 4] == 15 + 4 * 3 + 2


@random_layers
@given(layout=layouts(), data=st.data())
def test_axes_change_places_in_memory_only(layout, data):
    places = st.integers(0, max(0, len(layout.shape) - 1))
    one, two = data.draw(places), data.draw(places)
    rows = torch.randn(2, layout.size)
    exchanged = layout.exchanged(one, two) if layout.shape else layout
    tensors = layout.unpack(rows)
    assert torch.equal(exchanged.unpack(exchanged.pack(tensors)), tensors)
    if layout.shape:
        moved = rows.view(2, *layout.shape).transpose(1 + one, 1 + two).flatten(1)
        assert torch.equal(exchanged.pack(tensors), moved)


def test_directions_keep_their_numbers_in_any_layout():
    weight = torch.randn(2, 4, 3, 5)
    directions = Directions({"weight": weight})
    layout = Layout((4, 5, 3), (0, 2, 1), (4, 3, 5))
    rows = directions.rows("weight", layout)
    assert torch.equal(layout.unpack(rows), weight)
    assert directions.rows("weight", layout) is rows
    assert torch.equal(directions.parameters()["weight"], weight)
    again = Directions.from_rows({"weight": (layout, rows)})
    assert again.count == 2 and torch.equal(again.parameters()["weight"], weight)


def test_directions_can_be_used_again():
    model = nn.Conv2d(3, 4, 3)
    losses = random_losses(model, torch.randn(2, 3, 5, 5))
    tensors = directions_for(model)
    directions = Directions(tensors)
    expected = dots_and_norms(model, losses, tensors)
    for _ in range(2):
        for found, right in zip(dots_and_norms(model, losses, directions), expected, strict=True):
            assert torch.equal(found, right)


def test_no_direction_gives_norms_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    losses = random_losses(model, torch.randn(2, 3, 5, 5))
    dots, norms = dots_and_norms(model, losses, directions_for(model, 0))
    assert dots.shape == (2, 0)
    assert torch.allclose(norms, dots_and_norms(model, losses, directions_for(model, 1))[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("bias"), r"'bias' should be \[4\] of float64 but is absent"),
        (lambda d: d.update(gain=torch.ones(3, 4)), r"'gain' should be absent but is \[4\]"),
        (lambda d: d.update(bias=torch.ones(3, 5)), r"'bias' should be \[4\] .* is \[5\]"),
        (lambda d: d.update(bias=d["bias"].float()), "float64 but is .* float32"),
        (lambda d: d.update(bias=torch.ones(2, 4)), r"unequal number: \[2, 3\]"),
        (lambda d: d.clear(), "no directions"),
    ],
)
def test_directions_that_do_not_fit(change, message):
    model = nn.Linear(3, 4)
    directions = directions_for(model)
    change(directions)
    with pytest.raises(ValueError, match=message):
        dots_and_norms(model, lambda: model(torch.randn(2, 3)).sum(1), directions)
