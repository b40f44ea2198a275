"""What sketches give to parameters, and where it lies in them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrac.gradients.allocation import (
    Sides,
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
    share=st.floats(0, 1),
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
    # One channel more or less of the side that has more.
    step = side.copies * max(1, min(inputs, outputs))
    assert abs(given - numbers) <= max(step, side.copies - numbers)


def test_numbers_are_exact_where_the_shape_allows():
    sides = {
        "vector": Sides(1, 1000, 1, 0.0),
        "square": Sides(1, 64, 64, 0.5),
        "one output": Sides(1, 300, 1, 0.5),
        "one input": Sides(1, 1, 300, 0.0),
        "as many": Sides(4, 8, 8, 0.0),
    }
    sizes = allocate_evenly(sides, 256)
    assert list(sizes) == list(sides)
    assert {sketch_size(sides, {name: sizes[name]}) for name in sides} == {256}


def test_no_share_is_too_small_for_numbers():
    model = network()
    losses = random_losses(model, torch.randn(3, 3, 6, 6))
    silent = {
        name: Sides(side.copies, side.inputs, side.outputs, 0.0)
        for name, side in measure_sides(model, losses).items()
    }
    assert list(allocate_evenly(silent, 50)) == [name for name, _ in model.named_parameters()]


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
    sides = dict.fromkeys(["a.weight", "b.weight", "a.bias"], Sides(1, 2, 1, 0.0))
    with pytest.raises(ValueError, match="layer 'a' are not neighbours"):
        blocks_by_layer(sides, dict.fromkeys(sides, (2, 1)))
