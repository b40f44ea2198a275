"""What is refused, in which words; nothing may be silently wrong."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from .agreement import assert_agrees, assert_refused, random_losses


class Elsewhere(nn.Module):
    """Uses a layer's parameter outside that layer."""

    def __init__(self, use) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.use = use

    def forward(self, x):
        return self.use(self.layer(x), self.layer.weight)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight.T, x.T @ gradient


def written_into(x, weight):
    out = x.new_zeros(len(x), 2, 4)
    out[:, 0] = x
    out[:, 1] = weight[0]
    return out


OUTSIDE = {
    "linear": F.linear,
    "product": lambda x, weight: x @ weight,
    "minus": lambda x, weight: x - weight[0],
    "list": lambda x, weight: torch.cat([x, weight[:1].expand(len(x), -1)], 1),
    "einsum": lambda x, weight: torch.einsum("bi,io->bo", x, weight),
    "written into": written_into,
    "autograd function": Product.apply,
    "in a checkpoint": lambda x, w: checkpoint(lambda y: F.linear(y, w), x, use_reentrant=True),
}


@pytest.mark.parametrize("use", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_a_parameter_used_outside_its_layer_is_refused(use):
    model = Elsewhere(use)
    losses = random_losses(model, torch.randn(3, 4))
    assert_refused(model, losses, "'layer.weight'", "layer 'layer' (Linear)")


@pytest.mark.parametrize(
    "use",
    [
        lambda x, weight: x.type_as(weight).to(weight.device),
        lambda x, weight: x + torch.zeros_like(weight[0]),
        lambda x, weight: x * weight.detach()[0],
        lambda x, weight: x * torch.no_grad()(lambda: weight.norm())(),
    ],
)
def test_a_use_without_gradient_is_none(use):
    model = Elsewhere(use)
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_a_frozen_parameter_may_be_used_anywhere():
    model = Elsewhere(F.linear)
    model.layer.weight.requires_grad_(False)
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_parameters_in_a_list_are_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.ParameterList([torch.randn(4)])

        def forward(self, x):
            return x * self.scales[0]

    model = Model()
    losses = random_losses(model, torch.randn(3, 4))
    assert_refused(model, losses, "'scales.0'", "'scales' (ParameterList)")


def test_a_forward_that_is_called_past_the_hooks_is_refused():
    model = nn.Linear(4, 4)
    inputs = torch.randn(3, 4)
    assert_refused(model, lambda: model.forward(inputs).sum(1), "is used outside")


@pytest.mark.parametrize("training", [True, False])
def test_multi_head_attention_is_refused(training):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    model = Model().train(training)
    losses = random_losses(model, torch.randn(3, 5, 4))
    assert_refused(model, losses, "'attention' (MultiheadAttention)", "tuple")
    model.attention.in_proj_weight.requires_grad_(False)
    model.attention.in_proj_bias.requires_grad_(False)
    assert_refused(model, losses, "attention.out_proj")


@pytest.mark.parametrize("batch", [3, 4])
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_computed_weight_is_refused(wrap, batch):
    """Also where the weight has as many rows as the batch has samples."""
    model = nn.Sequential(nn.Linear(4, 4), wrap(nn.Linear(4, 4))).eval()
    assert_refused(model, random_losses(model, torch.randn(batch, 4)), "1")


def test_a_computed_weight_that_is_frozen_leaves_the_bias():
    layer = parametrizations.weight_norm(nn.Linear(4, 4))
    layer.parametrizations.requires_grad_(False)
    model = nn.Sequential(nn.Linear(4, 4), layer)
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_gradient_checkpointing_is_refused(reentrant, first):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Identity() if first else nn.Linear(4, 4)
            self.block = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

        def forward(self, x):
            return checkpoint(self.block, self.first(x), use_reentrant=reentrant)

    model = Model()
    inputs = torch.randn(3, 4, requires_grad=True)
    losses = random_losses(model, inputs)
    assert_refused(model, losses, "'block.", "checkpointing")


def test_samples_elsewhere_than_on_the_first_axis_are_refused():
    model = nn.Linear(4, 4)
    inputs = torch.randn(5, 3, 4)
    assert_refused(model, lambda: model(inputs).sum((0, 2)), "the Linear", "(5, 3, 4)", "3 losses")


def test_samples_folded_into_positions_are_refused():
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 4), nn.Unflatten(0, (3, 5)))
    assert_refused(model, random_losses(model, torch.randn(3, 5, 4)), "'1' (Linear)", "(15, 4)")


def test_an_image_without_a_batch_is_refused():
    model = nn.Conv2d(3, 4, 3)
    image = torch.randn(3, 5, 5)
    assert_refused(model, lambda: model(image).sum((1, 2)), "Conv2d")


def test_an_input_overwritten_after_it_was_read_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            hidden = self.first(x)
            result = self.second(hidden)
            hidden.mul_(2)
            return result

    model = Model()
    model.second.weight.requires_grad_(False)  # or autograd itself would complain
    losses = random_losses(model, torch.randn(3, 4))
    model.second.weight.requires_grad_(True)
    assert_refused(model, losses, "'second'", "in place")


def test_an_image_overwritten_after_it_was_read_is_refused():
    model = nn.Linear(4, 4)
    inputs = torch.randn(3, 4)

    def losses():
        images = inputs.clone()
        output = model(images)
        images.zero_()
        return output.square().sum(1)

    assert_refused(model, losses, "the Linear", "in place")


def test_a_layer_that_overwrites_its_input_is_refused():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return x.mul_(2) * self.weight

    model = nn.Sequential(nn.Linear(4, 4), Layer())
    assert_refused(model, random_losses(model, torch.randn(3, 4)), "'1' (Layer)", "in place")


def test_differentiating_inside_the_forward_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = nn.Linear(4, 1)

        def forward(self, x):
            x = x.clone().requires_grad_()
            energy = self.energy(x.sin()).sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]

    model = Model()
    assert_refused(model, random_losses(model, torch.randn(3, 4)), "'energy'", "inside")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4))))
    assert_refused(model, random_losses(model, torch.randn(3, 4)), "'1'", "TorchScript")


def test_losses_without_gradient_are_refused():
    model = nn.Linear(4, 4)
    losses = torch.no_grad()(random_losses(model, torch.randn(3, 4)))
    assert_refused(model, losses, "do not depend", "no_grad")


def test_a_mean_loss_is_no_loss_per_sample():
    from retrac.gradients import dots_and_norms

    from .agreement import directions_for

    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"\[B\] losses, not \(\)"):
        dots_and_norms(model, lambda: model(torch.randn(3, 4)).mean(), directions_for(model))
