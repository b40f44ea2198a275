import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from .agreement import assert_agrees, random_layers, random_losses, seeds


@random_layers
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    width=st.integers(1, 6),
    outputs=st.integers(1, 6),
    bias=st.booleans(),
    first=st.booleans(),
    seed=seeds,
)
def test_any_shape(slices, shape, width, outputs, bias, first, seed):
    torch.manual_seed(seed)
    layers = [] if first else [nn.Linear(width, width), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(width, outputs, bias=bias))
    assert_agrees(model, random_losses(model, torch.randn(*shape, width)), (1, shape[0]))


def test_many_positions_and_few_numbers(slices):
    model = nn.Sequential(nn.Linear(2, 3), nn.SiLU(), nn.Linear(3, 2))
    assert_agrees(model, random_losses(model, torch.randn(4, 40, 2)), (1, 2, 4))


def test_few_positions_and_many_numbers(slices):
    model = nn.Sequential(nn.Linear(30, 40), nn.SiLU(), nn.Linear(40, 30))
    assert_agrees(model, random_losses(model, torch.randn(4, 2, 30)), (1, 2, 4))


def test_a_transposed_input():
    model = nn.Linear(5, 3)
    assert_agrees(model, random_losses(model, torch.randn(4, 5, 7).mT))


def test_an_input_by_name():
    model = nn.Linear(5, 3)
    images = torch.randn(4, 5)
    assert_agrees(model, lambda: model(input=images).square().sum(1))


def test_single_precision(slices):
    model = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 4)).float()
    losses = random_losses(model, torch.randn(6, 9, 8, dtype=torch.float32))
    assert_agrees(model, losses, (1, 3))
