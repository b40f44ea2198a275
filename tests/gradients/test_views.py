"""Linear views of gradients: inner products and sketches, of several losses, in groups."""

import pytest
import torch
from torch import nn

from retrac.gradients import CoverageError, Directions, oracle
from retrac.gradients.allocation import allocate, measure_sides
from retrac.gradients.contract import Products
from retrac.gradients.sketch import Projection
from retrac.gradients.tape import per_sample_gradients
from retrac.gradients.views import viewed

from .agreement import assert_untouched, directions_for
from .test_measurements import Written, three
from .test_sketch import network
from .test_tape import Net


def outputs_of(model, batch=4):
    images = torch.randn(batch, 3, 6, 6)
    return lambda: model(images)


def expected_rows(model, losses, group, names=None):
    """The oracle's gradients, summed in groups and side by side, `[B / group, n]`."""
    by_name = oracle.per_sample_gradients(model, losses)
    names = by_name if names is None else names
    rows = torch.cat([by_name[name].flatten(1) for name in names], 1)
    return rows.unflatten(0, (-1, group)).sum(1)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_products_of_several_losses(group):
    model = network()
    output = outputs_of(model)
    directions = directions_for(model)
    rows = torch.cat([directions[name].flatten(1) for name, _ in model.named_parameters()], 1)
    view = Products(Directions(directions))
    views = viewed(model, lambda: three(output()), view, group)
    assert len(views) == 3
    for number, (dots, squared) in enumerate(views):
        expected = expected_rows(model, lambda n=number: three(output())[n], group)
        torch.testing.assert_close(dots, expected @ rows.T, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(squared, expected.square().sum(1), rtol=1e-9, atol=1e-12)
    assert_untouched(model, {name for name, _ in model.named_parameters()})


def test_norms_alone():
    model = network()
    output = outputs_of(model)
    for number, (nothing, squared) in enumerate(viewed(model, lambda: three(output()), Products())):
        expected = expected_rows(model, lambda n=number: three(output())[n], 1)
        torch.testing.assert_close(squared, expected.square().sum(1), rtol=1e-9, atol=1e-12)
        assert nothing.shape == (4, 0)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_sketches_of_several_losses(group):
    """A sketch is linear: that of a sum is the sum of them."""
    model = network()
    output = outputs_of(model)
    sizes = allocate(measure_sides(model, lambda: output().sum(1)), 150)
    sizes.pop("0.weight", None)
    projection = Projection(0, sizes)
    for number, (rows, squared) in enumerate(
        viewed(model, lambda: three(output()), projection, group)
    ):
        ((alone, _),) = viewed(model, lambda n=number: three(output())[n], projection)
        sums = alone.unflatten(0, (-1, group)).sum(1)
        torch.testing.assert_close(rows, sums, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(squared, rows.square().sum(1), rtol=1e-9, atol=1e-12)
    assert_untouched(model, {name for name, _ in model.named_parameters()})


def test_a_projection_that_keeps_everything_gives_the_gradients_in_the_order_of_its_sizes():
    model = network()
    output = outputs_of(model)
    sizes = allocate(measure_sides(model, lambda: output().sum(1)), 10**9)
    sizes = {name: sizes[name] for name in reversed(sizes)}
    for number, (rows, _) in enumerate(
        viewed(model, lambda: three(output()), Projection(0, sizes))
    ):
        plain = Written(unpack=False)
        per_sample_gradients(model, lambda n=number: three(output())[n], plain)
        assert torch.equal(rows, torch.cat([plain.by_name[name] for name in sizes], 1))


def two_heads():
    model = Net(None, trunk=nn.Linear(4, 4), one=nn.Linear(4, 2), two=nn.Linear(4, 3))
    inputs = torch.randn(4, 4)

    def losses():
        hidden = model.trunk(inputs).tanh()
        return model.one(hidden).square().sum(1), model.two(hidden).square().sum(1)

    return model, losses


@pytest.mark.parametrize("group", [1, 2])
def test_what_only_one_loss_reaches_is_zero_in_the_sketches_of_the_other(group):
    model, losses = two_heads()
    names = [name for name, _ in model.named_parameters()]
    sizes = dict.fromkeys(names, (9, 9))
    for number, (rows, _) in enumerate(viewed(model, losses, Projection(0, sizes), group)):
        expected = expected_rows(model, lambda n=number: losses()[n], group)
        torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-12)


def test_what_no_loss_reaches_is_refused_in_sketches():
    model, losses = two_heads()
    sizes = {name: (9, 9) for name, _ in model.named_parameters()}
    with pytest.raises(CoverageError, match=r"'two.weight' was used when"):
        viewed(model, lambda: losses()[0], Projection(0, sizes))


def test_groups_that_do_not_divide_the_batch():
    model = network()
    output = outputs_of(model, 3)
    with pytest.raises(ValueError, match="3 samples do not make groups of 2"):
        viewed(model, lambda: output().sum(1), Products(), 2)
    assert_untouched(model, {name for name, _ in model.named_parameters()})


def test_directions_of_another_model_are_refused():
    model = network()
    output = outputs_of(model)
    directions = directions_for(model)
    directions.pop("0.bias")
    with pytest.raises(ValueError, match=r"'0.bias' should be"):
        viewed(model, lambda: output().sum(1), Products(Directions(directions)))
