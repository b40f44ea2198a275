import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from .agreement import assert_agrees, assert_refused, random_layers, random_losses, seeds


def scrambled(model: nn.Module) -> nn.Module:
    """With scales and shifts other than the one and zero they start at."""
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@random_layers
@given(
    batch=st.integers(1, 4),
    groups=st.integers(1, 3),
    across=st.integers(2, 3),
    positions=st.lists(st.integers(1, 4), max_size=3),
    seed=seeds,
)
def test_group_norm(batch, groups, across, positions, seed):
    torch.manual_seed(seed)
    channels = groups * across
    model = scrambled(nn.Sequential(nn.GroupNorm(groups, channels), nn.GroupNorm(1, channels)))
    images = torch.randn(batch, channels, *positions)
    assert_agrees(model, random_losses(model, images), (1, batch))


def test_group_norm_of_channels_last():
    model = scrambled(nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(2, 6)))
    images = torch.randn(3, 3, 5, 4).to(memory_format=torch.channels_last)
    assert_agrees(model, random_losses(model.to(memory_format=torch.channels_last), images))


@random_layers
@given(
    batch=st.integers(1, 4),
    positions=st.lists(st.integers(1, 3), max_size=2),
    normalised=st.lists(st.integers(2, 4), min_size=1, max_size=3),
    bias=st.booleans(),
    seed=seeds,
)
def test_layer_norm(batch, positions, normalised, bias, seed):
    torch.manual_seed(seed)
    model = scrambled(nn.Sequential(nn.LayerNorm(normalised, bias=bias), nn.LayerNorm(normalised)))
    inputs = torch.randn(batch, *positions, *normalised)
    assert_agrees(model, random_losses(model, inputs), (1, batch))


def test_norms_without_parameters():
    model = nn.Sequential(
        nn.GroupNorm(2, 4, affine=False),
        nn.Conv2d(4, 4, 1),
        nn.LayerNorm([4, 3, 3], elementwise_affine=False),
    )
    assert_agrees(model, random_losses(model, torch.randn(2, 4, 3, 3)))


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(4, affine=True), nn.RMSNorm([4, 3, 3])])
def test_norms_without_a_rule(norm):
    model = scrambled(nn.Sequential(nn.Conv2d(4, 4, 1), norm.double()))
    assert_agrees(model, random_losses(model, torch.randn(2, 4, 3, 3)))


def test_batch_norm_in_eval():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    model(torch.randn(8, 3, 5, 5))  # gathers statistics
    model.eval()
    assert_agrees(model, random_losses(model, torch.randn(3, 3, 5, 5)))


def test_batch_norm_in_training_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False))
    losses = random_losses(model, torch.randn(3, 3, 5, 5))
    assert_refused(model, losses, "'1' (BatchNorm2d)", "model.eval()")


def test_batch_norm_without_running_statistics_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    losses = random_losses(model, torch.randn(3, 3, 5, 5))
    assert_refused(model, losses, "'1' (BatchNorm2d)", "no running statistics")


def test_a_layer_norm_over_the_samples_is_refused():
    model = nn.LayerNorm([4, 3])
    assert_refused(model, lambda: model(torch.randn(4, 3)).square().sum(1), "LayerNorm")
