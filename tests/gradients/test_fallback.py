import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .agreement import assert_agrees, assert_refused, random_losses

LAYERS = [
    (nn.Conv1d(3, 4, 3, padding=1, groups=1), (3, 7)),
    (nn.Conv1d(4, 4, 3, stride=2, groups=2), (4, 7)),
    (nn.Conv3d(2, 3, 2), (2, 3, 4, 3)),
    (nn.ConvTranspose2d(3, 4, 3, stride=2), (3, 4, 4)),
    (nn.ConvTranspose1d(3, 4, 3), (3, 4)),
    (nn.PReLU(), (3, 4)),
    (nn.PReLU(3), (3, 4)),
    (nn.RMSNorm(4), (3, 4)),
    (nn.BatchNorm1d(3).eval(), (3, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda each: str(each)[:30])
@pytest.mark.parametrize("first", [True, False])
def test_layers_without_a_rule(layer, shape, first):
    layer = layer.double()
    model = nn.Sequential(*([] if first else [nn.Linear(shape[-1], shape[-1])]), layer)
    assert_agrees(model, random_losses(model, torch.randn(3, *shape)), (1, 3))


def test_two_inputs():
    layer = nn.Bilinear(3, 4, 5)
    assert_agrees(layer, random_losses(layer, torch.randn(3, 3), torch.randn(3, 4)))


class Block(nn.Module):
    """Own parameters and children with parameters, options, a shared table and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(()))
        self.table = nn.Parameter(torch.randn(2, 4))
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Conv1d(3, 3, 1))
        self.register_buffer("offset", torch.randn(4))

    def forward(self, hidden, *, extra=None, mask=None, shared=None, strength=1.0):
        shift, scale = self.table
        hidden = self.inner(hidden * (1 + scale) + shift) * self.scale
        if extra is not None:
            hidden = hidden + extra["by_sample"][0][:, None] * self.frozen
        if mask is not None:
            hidden = hidden * mask[:, None, None]
        return hidden + strength * (self.offset if shared is None else shared * self.table[0])


def test_a_module_with_parameters_and_children_of_its_own():
    model = nn.Sequential(nn.Linear(4, 4), Block(), Block())
    assert_agrees(model, random_losses(model, torch.randn(5, 3, 4)), (1, 5))


def test_arguments_by_name_and_in_containers():
    model = Block()
    losses = random_losses(
        model,
        torch.randn(5, 3, 4),
        extra={"by_sample": [torch.randn(5, 4)]},
        mask=torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0]),
        shared=torch.randn(3, 4),
        strength=0.5,
    )
    assert_agrees(model, losses, (1, 5))


def test_a_shared_argument_that_looks_like_a_batch_is_refused():
    model = Block()
    losses = random_losses(model, torch.randn(3, 3, 4), shared=torch.randn(3, 4))
    assert_refused(model, losses, "the Block", "one sample alone")


def test_the_same_parameter_under_two_names():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Parameter(torch.randn(4))
            self.second = self.first

        def forward(self, x):
            return (x * self.first).sin() + self.second

    model = nn.Sequential(nn.Linear(4, 4), Twice())
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_a_parameter_shared_with_a_child():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = nn.Linear(4, 4)
            self.weight = self.child.weight

        def forward(self, x):
            return F.linear(self.child(x).sin(), self.weight.T)

    model = Parent()
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_a_scalar_parameter():
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return x.sin() * self.gain

    model = nn.Sequential(nn.Linear(4, 4), Gain())
    assert_agrees(model, random_losses(model, torch.randn(3, 4)), (1, 3))


class Own(nn.Module):
    """One parameter, and something done to the input."""

    def __init__(self, what) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))
        self.what = what
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return self.what(self, x * self.weight)


def counted(layer, x):
    layer.calls += 1
    return x * layer.calls


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (lambda layer, x: x - x.mean(0), "one sample alone"),
        (lambda layer, x: x * random.random(), "one sample alone"),
        (lambda layer, x: F.dropout(x), "randomness"),
        (lambda layer, x: x * x.sum().item(), "item"),
    ],
    ids=["mixes samples", "random in Python", "random", "leaves tensors"],
)
def test_what_cannot_be_taken_apart_is_refused(what, reason):
    model = nn.Sequential(nn.Linear(4, 4), Own(what))
    assert_refused(model, random_losses(model, torch.randn(3, 4)), "'1' (Own)", reason)


def test_a_layer_that_changes_with_every_call_is_refused():
    model = Own(counted)
    inputs = torch.randn(3, 4)
    assert_refused(model, lambda: model(inputs).sum(1), "the Own")
    assert model.calls == 1  # looking again left no trace


def test_zero_dropout_is_no_randomness():
    model = Own(lambda layer, x: F.dropout(x, 0.0))
    assert_agrees(model, random_losses(model, torch.randn(3, 4)))


def test_a_parameter_repeated_for_each_sample_is_refused():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(4))

        def forward(self, batch):
            return self.token.expand(batch, 4)

    token = Token()
    assert_refused(token, lambda: token(3).sin().sum(1), "the Token", "one sample alone")
