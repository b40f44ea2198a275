"""Several losses of one forward pass: the gradients of each are those of a pass for it alone."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from families import EVERY, family
from retrac.gradients import CoverageError, oracle
from retrac.gradients.tape import per_sample_gradients

from .agreement import assert_untouched
from .test_models import VARIATIONS, unet
from .test_tape import Net, thrice_with_a_loose_end, twice


class Written:
    """Writes gradients out, in the order of their parameters' own numbers, or of their layout."""

    def __init__(self, unpack=True):
        self.by_name = {}
        self.unpack = unpack

    def __call__(self, name, gradient):
        assert name not in self.by_name
        rows = gradient.materialise()
        self.by_name[name] = gradient.layout.unpack(rows) if self.unpack else rows


def written(model, losses, count):
    consumers = [Written() for _ in range(count)]
    values = per_sample_gradients(model, losses, consumers)
    assert not values.requires_grad and values.shape[0] == count
    return [consumer.by_name for consumer in consumers]


def three(output):
    """What one forward pass may be asked for."""
    numbers = output.flatten(1)
    return numbers.square().mean(1), numbers.mean(1), (numbers.sin() * numbers).mean(1)


def assert_as_one_by_one(model, outputs):
    """Both ways of giving three losses, against a pass for each, and the oracle."""
    apart = written(model, lambda: three(outputs()), 3)
    together = written(model, lambda: torch.stack(three(outputs())), 3)
    for number, (one, two) in enumerate(zip(apart, together, strict=True)):
        alone = Written()
        per_sample_gradients(model, lambda n=number: three(outputs())[n], alone)
        expected = oracle.per_sample_gradients(model, lambda n=number: three(outputs())[n])
        scale = max(rows.abs().max() for rows in expected.values())
        for name, rows in expected.items():
            if name not in alone.by_name:
                assert name not in one and not rows.any()
                continue
            tolerance = {"rtol": 1e-9, "atol": float(1e-12 * scale)}
            for gradients in (one, two):
                torch.testing.assert_close(gradients[name], alone.by_name[name], **tolerance)
                torch.testing.assert_close(gradients[name], rows, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_unets(variation):
    model = unet(variation, torch.float64)
    images, timesteps = torch.randn(3, 3, 8, 8), torch.tensor([3, 500, 3])
    labels = torch.tensor([0, 2, 0]) if model.config.num_class_embeds else None
    assert_as_one_by_one(model, lambda: model(images, timesteps, labels).sample)


@pytest.mark.parametrize("name", EVERY)
def test_families(name):
    each = family(name)
    network, seen, times = each.network, each.seen, torch.tensor([3, 20, 49])
    assert_as_one_by_one(network, lambda: each.call(network, seen.clean, times, seen.conditions))


@pytest.mark.parametrize("forward", [twice, thrice_with_a_loose_end])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(4, 4), (5, 4)),
        (lambda: nn.Conv2d(4, 4, 3, padding=1), (4, 3, 3)),
        (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
        (lambda: nn.Conv1d(4, 4, 3, padding=1), (4, 6)),
    ],
    ids=["Linear", "Conv2d", "GroupNorm", "Conv1d"],
)
def test_a_layer_used_again(forward, layer, shape):
    model, inputs = Net(forward, layer=layer()), torch.randn(3, *shape)
    assert_as_one_by_one(model, lambda: model(inputs))


def test_tied_layers():
    model = Net(lambda net, x: net.b(net.a(x).tanh()), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    model.b.weight = model.a.weight
    inputs = torch.randn(3, 5, 4)
    assert_as_one_by_one(model, lambda: model(inputs))


def test_a_parameter_that_only_one_loss_reaches():
    """Of a layer used twice one loss sees one use only."""
    model = Net(None, trunk=nn.Linear(4, 4), one=nn.Linear(4, 2), two=nn.Linear(4, 2))
    inputs = torch.randn(3, 4)

    def losses():
        hidden = model.trunk(inputs).tanh()
        again = model.trunk(hidden)
        return (
            model.one(hidden).square().sum(1),
            model.two(again).square().sum(1),
            model.two(hidden).sum(1),
        )

    apart = written(model, losses, 3)
    assert [set(gradients) for gradients in apart] == [
        {"trunk.weight", "trunk.bias", f"{head}.weight", f"{head}.bias"}
        for head in ("one", "two", "two")
    ]
    together = written(model, lambda: torch.stack(losses()), 3)
    for number in range(3):
        expected = oracle.per_sample_gradients(model, lambda n=number: losses()[n])
        for name, rows in expected.items():
            torch.testing.assert_close(together[number][name], rows)
            if name in apart[number]:
                torch.testing.assert_close(apart[number][name], rows)
            else:
                assert not rows.any()


def test_a_sequence_keeps_losses_apart_where_one_of_them_has_no_derivative():
    model, inputs = nn.Linear(4, 4), torch.randn(3, 4)
    expected = oracle.per_sample_gradients(model, lambda: model(inputs).sum(1))

    def losses():
        output = model(inputs)
        return output.sum(1), (0 * output).sum(1).sqrt()

    gradients, undefined = written(model, losses, 2)
    torch.testing.assert_close(gradients["weight"], expected["weight"])
    assert undefined["weight"].isnan().any()


@pytest.mark.parametrize("count", [1, 2])
def test_one_loss_in_a_row_or_a_sequence(count):
    model, inputs = nn.Linear(4, 2), torch.randn(3, 4)
    expected = oracle.per_sample_gradients(model, lambda: model(inputs).square().sum(1))
    for wrap in (lambda loss: [loss] * count, lambda loss: torch.stack([loss] * count)):
        for gradients in written(model, lambda w=wrap: w(model(inputs).square().sum(1)), count):
            torch.testing.assert_close(gradients["weight"], expected["weight"])


def test_small_losses_are_scaled_in_float16():
    layer = nn.Linear(2, 1, bias=False).half()
    inputs = torch.full((1, 2), 1e-3, dtype=torch.float16)

    def losses():
        output = layer(inputs).float().flatten()
        return output * 1e-7, output * 3e-7

    for factor, gradients in zip((1, 3), written(layer, losses, 2), strict=True):
        expected = torch.full((1, 1, 2), factor * 1e-10, dtype=torch.float32)
        torch.testing.assert_close(gradients["weight"], expected, rtol=0.02, atol=0)


def test_inputs_are_freed_as_the_last_backward_pass_passes_them():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 2))
    inputs, seen = torch.randn(3, 4), []
    for layer in (model[2], model[4]):
        layer.register_forward_pre_hook(
            lambda _, args: seen.append(StorageWeakRef(args[0].untyped_storage()))
        )
    held = []

    def consume(name, gradient):
        if name.endswith("weight"):
            held.append([not storage.expired() for storage in seen])

    per_sample_gradients(model, lambda: three(model(inputs)), [consume] * 3)
    assert held[:6] == [[True, True]] * 6
    assert held[7:] == [[True, False], [False, False]]


def refused(model, losses, count, error=CoverageError):
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with pytest.raises(error) as caught:
        per_sample_gradients(model, losses, [lambda name, gradient: None] * count)
    assert_untouched(model, trainable)
    return str(caught.value)


@pytest.mark.parametrize("wrap", [tuple, torch.stack], ids=["sequence", "tensor"])
def test_a_loss_that_depends_on_no_parameter_is_refused(wrap):
    model, inputs = nn.Linear(4, 4), torch.randn(3, 4)

    def losses():
        output = model(inputs)
        return wrap([output.sum(1), output.detach().sum(1)])

    assert "losses 1 do not depend on any trainable parameter" in refused(model, losses, 2)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda output: output.mean(), r"[B] losses, not ()"),
        (lambda output: output[None], r"[B] losses, not (1, 3, 4)"),
        (lambda output: (output.sum(1), output.sum(1)[:2]), r"[B] losses, not (2,), (3,)"),
        (lambda output: (), r"[B] losses, not none"),
        (lambda output: (output.sum(1), output.mean(1)), "1 consumers for 2 losses"),
    ],
)
def test_losses_that_are_not_one_number_a_sample_are_refused(losses, message):
    model, inputs = nn.Linear(4, 4), torch.randn(3, 4)
    assert message in refused(model, lambda: losses(model(inputs)), 1, ValueError)


def test_a_parameter_that_only_the_second_loss_uses_outside_its_layer_is_refused():
    model = Net(None, layer=nn.Linear(4, 4), other=nn.Linear(4, 4))
    inputs = torch.randn(3, 4)

    def losses():
        output = model.layer(inputs)
        return output.sum(1), F.linear(output, model.other.weight).sum(1)

    assert "'other.weight' is used outside" in refused(model, losses, 2)


def test_an_input_overwritten_between_backward_passes_is_refused():
    model, images = nn.Linear(4, 4), torch.randn(3, 4)

    def losses():
        output = model(images)
        return output.sum(1), output.square().sum(1)

    def overwrite(name, gradient):
        images.zero_()

    with pytest.raises(CoverageError, match="overwritten in place"):
        per_sample_gradients(model, losses, [overwrite, overwrite])


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused(reentrant):
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model = Net(lambda net, x: checkpoint(net.block, x, use_reentrant=reentrant), block=block)
    inputs = torch.randn(3, 4, requires_grad=True)
    message = refused(model, lambda: three(model(inputs)), 3)
    assert "'block." in message and "checkpointing" in message


def test_losses_come_back_as_they_were():
    model, inputs = nn.Linear(4, 4), torch.randn(3, 4)
    ignore = lambda name, gradient: None  # noqa: E731
    alone = per_sample_gradients(model, lambda: model(inputs).sum(1), ignore)
    together = per_sample_gradients(model, lambda: three(model(inputs)), [ignore] * 3)
    assert torch.equal(alone, model(inputs).sum(1).detach())
    assert torch.equal(together, torch.stack(three(model(inputs))).detach())
