"""What sketches give to parameters, and where it lies in them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrac.gradients.allocation import (
    Sides,
    allocate,
    allocate_evenly,
    blocks,
    blocks_by_layer,
    measure_sides,
    sketch_size,
)
from retrac.gradients.sketch import Projection
from retrac.gradients.tape import per_sample_gradients
from retrac.gradients.views import viewed

from .agreement import random_layers, random_losses
from .test_sketch import network

sides_of_all_kinds = st.builds(
    Sides,
    copies=st.sampled_from([1, 2, 9, 25]),
    inputs=st.integers(1, 600),
    outputs=st.sampled_from([1, 2, 3, 10, 64, 500]),
)


@random_layers
@given(side=sides_of_all_kinds, numbers=st.integers(1, 2000))
def test_every_parameter_gets_about_as_many_numbers(side, numbers):
    (size,) = allocate_evenly({"layer.weight": side}, numbers).values()
    inputs, outputs = size
    assert 1 <= inputs <= side.inputs and 1 <= outputs <= side.outputs
    given = sketch_size({"layer.weight": side}, {"layer.weight": size})
    if numbers >= side.numbers:
        assert size == (side.inputs, side.outputs)
        return
    # One channel more or less of the side that has more; half of one where that is whole.
    step = side.copies * max(min(inputs, outputs), max(inputs, outputs) / 2)
    assert abs(given - numbers) <= max(step, side.copies - numbers)


def test_numbers_are_exact_where_the_shape_allows():
    sides = {
        "vector": Sides(1, 1000, 1),
        "square": Sides(1, 64, 64),
        "one output": Sides(1, 300, 1),
        "one input": Sides(1, 1, 300),
        "as many": Sides(4, 8, 8),
    }
    sizes = allocate_evenly(sides, 256)
    assert list(sizes) == list(sides)
    assert {sketch_size(sides, {name: sizes[name]}) for name in sides} == {256}


def test_a_size_is_shared_evenly():
    """By what does not have as many: it is whole."""
    sides = {"large": Sides(1, 64, 64), "small": Sides(1, 20, 1), "other": Sides(1, 32, 32)}
    sizes = allocate(sides, 1000)
    parts = {name: sketch_size(sides, {name: size}) for name, size in sizes.items()}
    assert parts["small"] == 20
    assert parts["large"] == pytest.approx(490, rel=0.05) == parts["other"]
    assert list(sizes) == list(sides)


def test_convolutions_at_pixels_come_first():
    first, last, inner = Sides(9, 3, 32), Sides(9, 32, 1), Sides(9, 64, 64)
    sides = {"first": first, "inner": inner, "other": inner, "last": last}
    assert first.at_pixels and last.at_pixels
    assert not inner.at_pixels and not Sides(1, 100, 1).at_pixels
    sizes = allocate(sides, 3000)
    assert sizes["first"] == (3, 32) and sizes["last"] == (32, 1)
    few = allocate(sides, 800)
    assert few["last"][0] < 32
    at_pixels = sketch_size(sides, {name: few[name] for name in ("first", "last")})
    assert at_pixels == pytest.approx(400, rel=0.1)
    alone = allocate({"last": last}, 300)
    assert alone == {"last": (32, 1)}


@given(sides=st.lists(sides_of_all_kinds, min_size=1, max_size=20), size=st.integers(1, 20000))
def test_nothing_is_left_out(sides, size):
    named = {str(number): side for number, side in enumerate(sides)}
    sizes = allocate(named, size)
    assert list(sizes) == list(named)
    assert all(
        1 <= a <= named[name].inputs and 1 <= b <= named[name].outputs
        for name, (a, b) in sizes.items()
    )


def test_blocks_are_the_parameters_parts_of_a_sketch():
    model = network()
    losses = random_losses(model, torch.randn(3, 3, 6, 6))
    sides = measure_sides(model, losses)
    sizes = allocate_evenly(sides, 50)
    projection = Projection(0, sizes)
    parts = {}

    def consume(name, gradient):
        parts[name] = projection(name, gradient)

    per_sample_gradients(model, losses, consume)
    ((rows, _),) = viewed(model, losses, projection)
    places = blocks(sides, sizes)
    assert list(places) == list(sizes)
    for name, place in places.items():
        assert torch.equal(rows[:, place], parts[name])
    assert places["7.weight"].stop == rows.shape[1] == sketch_size(sides, sizes)


def test_blocks_of_layers_have_weights_and_biases_together():
    model = network()
    sides = measure_sides(model, random_losses(model, torch.randn(3, 3, 6, 6)))
    sizes = allocate_evenly(sides, 50)
    places, layers = blocks(sides, sizes), blocks_by_layer(sides, sizes)
    assert list(layers) == ["0", "1", "3", "5", "7"]
    for layer, place in layers.items():
        own = [places[name] for name in sizes if name.startswith(f"{layer}.")]
        assert (place.start, place.stop) == (own[0].start, own[-1].stop)
    assert blocks_by_layer({"weight": sides["7.weight"]}, {"weight": (2, 2)}) == {"": slice(0, 4)}


def test_layers_in_pieces_are_refused():
    sides = dict.fromkeys(["a.weight", "b.weight", "a.bias"], Sides(1, 2, 1))
    with pytest.raises(ValueError, match="layer 'a' are not neighbours"):
        blocks_by_layer(sides, dict.fromkeys(sides, (2, 1)))
