"""What sketches give to parameters, and where it lies in them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrac.gradients import oracle
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


def test_shares_are_of_the_squared_norm():
    model = network()
    losses = random_losses(model, torch.randn(3, 3, 6, 6))
    sides = measure_sides(model, losses)
    by_name = oracle.per_sample_gradients(model, losses)
    squares = {name: rows.flatten(1).square().sum(1) for name, rows in by_name.items()}
    total = sum(squares.values())
    for name, side in sides.items():
        own = squares[name]
        assert side.share == pytest.approx(
            float((own / total).mean() / 2 + own.sum() / total.sum() / 2)
        )
        assert side.numbers == model.get_parameter(name).numel()
    assert list(sides) == [name for name, _ in model.named_parameters()]


def test_layers_are_served_by_their_share_and_small_ones_kept_whole():
    sides = {
        "large": Sides(9, 64, 64, 0.2),
        "small": Sides(9, 16, 1, 0.7),
        "rest": Sides(1, 500, 1, 0.1),
    }
    sizes = allocate(sides, 1000)
    assert sizes["small"] == (16, 1)
    assert sketch_size({"large": sides["large"]}, {"large": sizes["large"]}) == pytest.approx(
        (1000 - 144) * 2 / 3, rel=0.1
    )
    assert sizes["rest"][1] == 1
    assert allocate({"silent": Sides(9, 4, 4, 0.0)}, 10) == {"silent": (1, 1)}


def test_what_would_get_very_few_is_left_out():
    sides = {
        "most": Sides(9, 64, 64, 0.999),
        "little": Sides(9, 64, 64, 0.001),
        "one number": Sides(1, 1, 1, 0.0015),
    }
    assert list(allocate(sides, 1000)) == ["most", "one number"]
    assert list(allocate({"most": sides["little"]}, 1000)) == ["most"]


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
