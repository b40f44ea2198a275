"""Whole passes over small networks with every habit that networks have."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from retrac.gradients import CoverageError, dots_and_norms, grouped_gradients
from retrac.gradients.tape import live_tape

from .agreement import (
    assert_agrees,
    assert_refused,
    assert_untouched,
    directions_for,
    random_losses,
)


class Net(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs):
        return self.run(self, *inputs)


def twice(net, x):
    return net.layer(net.layer(x).tanh())


def thrice_with_a_loose_end(net, x):
    hidden = net.layer(x).tanh()
    net.layer(hidden)  # does not reach the loss
    return net.layer(hidden) + net.layer(x).detach()


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
def test_a_layer_used_again(slices, forward, layer, shape):
    model = Net(forward, layer=layer())
    assert_agrees(model, random_losses(model, torch.randn(3, *shape)), (1, 3))


def test_a_layer_used_again_at_another_size():
    model = Net(lambda net, x: net.layer(net.layer(x)[:, :, ::2]), layer=nn.Conv2d(3, 3, 2))
    assert_agrees(model, random_losses(model, torch.randn(3, 3, 6, 6)), (1, 3))


def test_tied_linears():
    model = Net(lambda net, x: net.b(net.a(x).tanh()), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    model.b.weight = model.a.weight
    assert_agrees(model, random_losses(model, torch.randn(3, 5, 4)), (1, 3))


def test_a_tied_embedding_and_read_out():
    model = Net(
        lambda net, tokens: net.out(net.embed(tokens).tanh()),
        embed=nn.Embedding(6, 4),
        out=nn.Linear(4, 6, bias=False),
    )
    model.out.weight = model.embed.weight
    assert_agrees(model, random_losses(model, torch.randint(6, (3, 5))), (1, 3))


@pytest.mark.parametrize("conv_first", [True, False])
def test_a_tied_convolution_and_its_transpose(conv_first):
    layers = [nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 3)]
    layers[1].weight = layers[0].weight
    model = nn.Sequential(*layers) if conv_first else nn.Sequential(*reversed(layers))
    images = torch.randn(2, 3 if conv_first else 4, 6, 6)
    assert_agrees(model, random_losses(model, images), (1, 2))


def test_tied_convolutions_of_other_groups():
    layers = [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(2, 4, 3)]
    layers[1].weight = layers[0].weight
    model = Net(lambda net, x: net.one(x) + net.two(x[:, :2]), one=layers[0], two=layers[1])
    assert_agrees(model, random_losses(model, torch.randn(3, 4, 6, 6)), (1, 3))


def test_one_module_under_two_names():
    layer = nn.Linear(4, 4)
    model = Net(lambda net, x: net.a(net.b(x).tanh()), a=layer, b=layer)
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


@pytest.mark.parametrize(
    "frozen",
    [
        ["0.weight"],
        ["0.bias"],
        ["0.weight", "0.bias"],
        ["2.weight", "2.bias", "1.weight"],
        ["4.weight", "4.bias"],
        ["3.weight"],
    ],
)
def test_frozen_parameters(frozen):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.PReLU(), nn.Conv2d(4, 3, 1)
    )
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    assert_agrees(model, random_losses(model, torch.randn(3, 3, 6, 6)))
    assert all(not model.get_parameter(name).requires_grad for name in frozen)


def test_unused_parameters_have_gradient_zero():
    model = Net(lambda net, x: net.used(x), used=nn.Linear(4, 4), unused=nn.Conv2d(3, 4, 3))
    losses = random_losses(model, torch.randn(4, 4))
    assert_agrees(model, losses, (1, 2))
    layout, rows = grouped_gradients(model, losses, 2)[0]["unused.weight"]
    assert layout.unpack(rows).shape == (2, 4, 3, 3, 3) and not rows.any()


def test_a_parameter_of_a_layer_that_its_forward_ignores():
    class Extra(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.extra = nn.Parameter(torch.randn(3))

    model = nn.Sequential(Extra())
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_a_loss_that_ignores_samples():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    inputs, kept = torch.randn(4, 4), torch.tensor([1.0, 0.0, 0.0, 2.0])
    losses = lambda: model(inputs).square().sum(1) * kept  # noqa: E731
    assert_agrees(model, losses, (1, 2))
    norms = dots_and_norms(model, losses, directions_for(model))[1]
    assert norms.count_nonzero() == 2


def test_one_sample_gone_astray_does_not_touch_the_others():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    inputs = torch.randn(3, 4)
    inputs[1, 2] = torch.nan
    dots, norms = dots_and_norms(
        model, lambda: model(inputs).square().sum(1), directions_for(model)
    )
    assert norms.isfinite().tolist() == [True, False, True]
    assert dots.isfinite().all(1).tolist() == [True, False, True]


IN_PLACE = {
    "Linear 2-D": (lambda: nn.Linear(4, 4), (4,)),
    "Linear 3-D": (lambda: nn.Linear(4, 4), (5, 4)),
    "Linear 4-D": (lambda: nn.Linear(4, 4, bias=False), (2, 5, 4)),
    "Conv2d": (lambda: nn.Conv2d(4, 4, 1), (4, 3, 3)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
    "Conv1d": (lambda: nn.Conv1d(4, 4, 1), (4, 3)),
}


@pytest.mark.parametrize(("layer", "shape"), IN_PLACE.values(), ids=IN_PLACE.keys())
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("change", [nn.ReLU(inplace=True), lambda y: y.mul_(2).add_(1)])
def test_an_output_changed_in_place(layer, shape, first, change):
    model = Net(
        lambda net, x: net.after(change(net.layer(net.before(x)))),
        before=nn.Identity() if first else nn.PReLU(),
        layer=layer(),
        after=nn.PReLU(),
    )
    assert_agrees(model, random_losses(model, torch.randn(3, *shape)))


def test_a_view_as_output_changed_in_place():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return (x * self.weight).view(len(x), -1)

    model = nn.Sequential(nn.Linear(4, 4), Flat(), nn.ReLU(inplace=True))
    assert_agrees(model, random_losses(model, torch.randn(3, 5, 4)))


def test_a_residual_added_in_place():
    def forward(net, x):
        hidden = net.a(x)
        hidden += net.b(x)
        return net.c(hidden)

    layers = {name: nn.Linear(4, 4) for name in "abc"}
    model = Net(forward, **layers)
    assert_agrees(model, random_losses(model, torch.randn(3, 5, 4)))


class Renamed(nn.Linear):
    """A subclass that computes as its parent does."""


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Standardised(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return super()._conv_forward(x, weight, bias)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: Renamed(4, 4), (5, 4)),
        (lambda: Doubled(4, 4), (5, 4)),
        (lambda: Standardised(4, 4, 3), (4, 5, 5)),
    ],
    ids=["as is", "forward", "inner method"],
)
def test_subclasses(layer, shape):
    model = nn.Sequential(nn.Identity(), layer())
    assert_agrees(model, random_losses(model, torch.randn(3, *shape)), (1, 3))


def test_a_forward_replaced_on_the_layer_itself():
    """As accelerate does to move weights between devices."""
    layer = nn.Linear(4, 4)
    forward = layer.forward
    layer.forward = lambda x: 3 * forward(x)
    model = nn.Sequential(nn.Linear(4, 4), layer)
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


@pytest.mark.parametrize("kind", [nn.Linear, Doubled])
def test_hooks_of_others(kind):
    """Also those that change what goes into a layer and what comes out."""
    model = nn.Sequential(nn.Linear(4, 4), kind(4, 4), nn.Linear(4, 4))
    seen = []
    model[1].register_forward_pre_hook(lambda layer, args: (args[0].sin(),))
    model[1].register_forward_hook(lambda layer, args, output: output.tanh() * 2)
    model[0].register_forward_hook(lambda layer, args, output: seen.append(output))
    model[1].register_full_backward_hook(lambda layer, inputs, outputs: None)
    inputs = torch.randn(3, 4)

    def losses():
        seen.clear()
        return model(inputs).square().sum(1) + seen[0].sin().sum(1)

    assert_agrees(model, losses)
    assert len(model[1]._forward_hooks) == 1 and len(model[1]._forward_pre_hooks) == 1


def test_a_part_without_gradient():
    def forward(net, x):
        with torch.no_grad():
            fixed = net.teacher(x)
        return net.student(x) * fixed

    model = Net(forward, teacher=nn.Linear(4, 4), student=nn.Linear(4, 4))
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_a_caller_without_gradient():
    model = nn.Sequential(nn.Linear(4, 4), nn.PReLU())
    losses = random_losses(model, torch.randn(3, 4))
    directions = directions_for(model)
    expected = dots_and_norms(model, losses, directions)
    with torch.no_grad():
        found = dots_and_norms(model, losses, directions)
    assert all(map(torch.equal, found, expected))
    assert not any(tensor.requires_grad for tensor in found)


def test_a_layer_that_returns_whole_numbers():
    class Codes(nn.Module):
        def __init__(self):
            super().__init__()
            self.codes = nn.Parameter(torch.randn(5, 4))

        def forward(self, x):
            return torch.cdist(x, self.codes).argmin(1)

    model = Net(lambda net, x: net.table(net.codes(x)), codes=Codes(), table=nn.Embedding(5, 3))
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_weights_given_for_the_call():
    """`functional_call` computes with other weights, of which the model's own know nothing."""
    model = Net(lambda net, x: net.a(net.b(x)), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    given = {"a.weight": torch.randn(4, 4), "a.bias": torch.randn(4)}
    inputs = torch.randn(3, 4)

    def losses():
        return torch.func.functional_call(model, given, (inputs,)).square().sum(1)

    assert_agrees(model, losses)


def test_channels_last():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.ConvTranspose2d(4, 3, 3)
    ).to(memory_format=torch.channels_last)
    images = torch.randn(3, 3, 6, 6).to(memory_format=torch.channels_last)
    assert_agrees(model, random_losses(model, images), (1, 3))


def test_groups_that_do_not_divide_the_batch():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    losses = random_losses(model, torch.randn(3, 3, 5, 5))
    with pytest.raises(ValueError, match="3 samples do not make groups of 2"):
        grouped_gradients(model, losses, 2)
    assert_untouched(model, {name for name, _ in model.named_parameters()})


def test_nothing_is_left_behind():
    model = nn.Sequential(nn.Linear(4, 4), nn.PReLU(), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    inputs = torch.randn(3, 4)
    dots_and_norms(model, lambda: model(inputs).sum(1), directions_for(model))
    assert_untouched(model, {"0.weight", "1.weight", "2.weight", "2.bias"})
    assert not inputs.requires_grad


def test_an_input_that_is_returned_is_not_made_to_require_gradient():
    class Skipped(nn.Linear):
        def forward(self, x):
            return x

    model = nn.Sequential(Skipped(4, 4), nn.Linear(4, 4))
    inputs = torch.randn(3, 4)
    assert_agrees(model, random_losses(model, inputs))
    assert not inputs.requires_grad


@pytest.mark.parametrize("where", ["forward", "loss", "backward", "hook"])
def test_an_exception_leaves_the_model_as_it_was(where):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.broken = False

        def forward(self, x):
            if self.broken and where == "forward":
                raise KeyError("broken")
            return x * self.weight

    model = nn.Sequential(nn.Linear(4, 4), Broken(), nn.Linear(4, 2))
    model[2].bias.requires_grad_(False)
    inputs = torch.randn(3, 4)
    trainable = {"0.weight", "0.bias", "1.weight", "2.weight"}

    def fail(*_):
        raise KeyError("broken")

    def losses():
        hidden = model(inputs)
        if model[1].broken and where == "loss":
            fail()
        if model[1].broken and where == "backward":
            hidden.register_hook(fail)
        return hidden.square().sum(1)

    model[1].broken = True
    handle = model[1].register_forward_hook(fail) if where == "hook" else None
    with pytest.raises(KeyError):
        dots_and_norms(model, losses, directions_for(model))
    if handle is not None:
        handle.remove()
    assert_untouched(model, trainable)
    model[1].broken = False
    assert_agrees(model, losses)
    losses().sum().backward()
    assert model[0].weight.grad is not None


def test_a_layer_that_fails_and_is_passed_over():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.randn(4))
            self.wide = nn.Linear(5, 4)

        def forward(self, x):
            try:
                return self.wide(x)
            except RuntimeError:
                return x * self.scale

    model = nn.Sequential(Choosy(), nn.Linear(4, 3))
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_results_do_not_vary():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3)).float()
    losses = random_losses(model, torch.randn(3, 3, 8, 8, dtype=torch.float32))
    directions = directions_for(model)
    first, second = (dots_and_norms(model, losses, directions) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_a_refusal_during_backward_leaves_no_gradient_behind():
    model = Net(lambda net, x: F.linear(net.layer(x), net.layer.weight), layer=nn.Linear(4, 4))
    assert_refused(model, random_losses(model, torch.randn(3, 4)), "'layer.weight'")
    assert_untouched(model, {"layer.weight", "layer.bias"})


def test_a_live_step_that_goes_backward_twice_is_refused() -> None:
    """Inputs are given back as soon as they were used: the second pass finds none."""
    net, found = nn.Linear(3, 2), {}
    with live_tape(net, found.__setitem__, {"weight", "bias"}) as tape:
        losses = tape.record(lambda: net(torch.randn(4, 3)).square().sum(1))
        losses.sum().backward(retain_graph=True)
        tape.flush()
        assert found.keys() == {"weight", "bias"}
        with pytest.raises(CoverageError, match="was overwritten in place"):
            losses.sum().backward()
