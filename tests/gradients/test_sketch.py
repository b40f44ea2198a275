"""Sketches keep inner products on average, and exactly where nothing is left out."""

import pytest
import torch
from torch import nn

from retrac.gradients import CoverageError, oracle
from retrac.gradients.allocation import Sides, allocate, measure_sides, sketch_size
from retrac.gradients.gradient import Dense
from retrac.gradients.layout import Layout
from retrac.gradients.sketch import Projection, sketches

from .agreement import random_losses


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv2d(8, 12, 3, stride=2, groups=2),
        nn.Flatten(),
        nn.Linear(12 * 2 * 2, 20),
        nn.SiLU(),
        nn.Linear(20, 4, bias=False),
    )


def gradients(model, losses):
    by_name = oracle.per_sample_gradients(model, losses)
    return torch.cat([rows.reshape(len(rows), -1) for rows in by_name.values()], 1)


def test_with_room_for_everything_nothing_is_lost():
    model = network()
    losses = random_losses(model, torch.randn(5, 3, 6, 6))
    sides = measure_sides(model, losses)
    written = gradients(model, losses)
    sizes = allocate(sides, 10**9)
    assert sketch_size(sides, sizes) == written.shape[1]
    found = sketches(model, losses, Projection(0, sizes))
    torch.testing.assert_close(found @ found.T, written @ written.T)


def test_inner_products_are_right_on_average():
    model = network()
    losses = random_losses(model, torch.randn(4, 3, 6, 6))
    written = gradients(model, losses)
    expected = written @ written.T
    sizes = allocate(measure_sides(model, losses), 150)
    grams = []
    for seed in range(300):
        found = sketches(model, losses, Projection(seed, sizes))
        grams.append(found @ found.T)
    drawn = torch.stack(grams)
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - expected).abs() < 4.5 * error).all()


def test_more_numbers_are_more_accurate():
    model = network()
    losses = random_losses(model, torch.randn(4, 3, 6, 6))
    written = gradients(model, losses)
    expected = written @ written.T
    sides = measure_sides(model, losses)

    def spread(size: int) -> float:
        sizes = allocate(sides, size)
        found = [sketches(model, losses, Projection(seed, sizes)) for seed in range(30)]
        return float(torch.stack([rows @ rows.T - expected for rows in found]).square().mean())

    assert spread(1200) < 0.5 * spread(300) < 0.25 * spread(60)


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


def test_a_projection_is_a_function_of_seed_and_name():
    gradient = Dense(torch.randn(3, 40), Layout.in_order((40,)))
    sizes = {"one": (5, 1), "two": (5, 1)}
    rows = Projection(0, sizes)("one", gradient)
    assert torch.equal(rows, Projection(0, sizes)("one", gradient))
    assert not torch.allclose(rows, Projection(0, sizes)("two", gradient))
    assert not torch.allclose(rows, Projection(1, sizes)("one", gradient))


def test_parameters_that_are_left_out_cost_nothing():
    model = network()
    losses = random_losses(model, torch.randn(3, 3, 6, 6))
    sizes = allocate(measure_sides(model, losses), 10**9)
    kept = {name: size for name, size in sizes.items() if not name.startswith("0.")}
    found = sketches(model, losses, Projection(0, kept))
    written = oracle.per_sample_gradients(model, losses)
    rows = torch.cat([written[name].flatten(1) for name in kept], 1)
    torch.testing.assert_close(found @ found.T, rows @ rows.T)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_that_are_gone_are_refused():
    model = network()
    losses = random_losses(model, torch.randn(3, 3, 6, 6))
    sizes = allocate(measure_sides(model, losses), 100)
    with pytest.raises(CoverageError, match="'more' was used when the sketch was laid out"):
        sketches(model, losses, Projection(0, {**sizes, "more": (1, 1)}))
