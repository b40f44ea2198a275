"""Sketches keep inner products on average, and exactly where nothing is left out."""

import pytest
import torch
from torch import nn

from retrac.gradients import CoverageError, oracle
from retrac.gradients.allocation import allocate, measure_sides, sketch_size
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
