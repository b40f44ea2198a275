import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from .agreement import assert_agrees, random_layers, random_losses, seeds

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@random_layers
@given(
    batch=st.integers(1, 4),
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    groups=st.integers(1, 3),
    inside=st.integers(1, 3),
    outside=st.integers(1, 3),
    kernel=pairs,
    stride=pairs,
    dilation=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    padding_mode=st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
    channels_last=st.booleans(),
    seed=seeds,
)
def test_any_geometry(
    slices,
    batch,
    size,
    groups,
    inside,
    outside,
    kernel,
    stride,
    dilation,
    padding,
    padding_mode,
    bias,
    channels_last,
    seed,
):
    torch.manual_seed(seed)
    for pixels, width, apart, pad in zip(size, kernel, dilation, padding, strict=True):
        assume(pixels + 2 * pad >= apart * (width - 1) + 1)
    layer = nn.Conv2d(
        groups * inside,
        groups * outside,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias,
        padding_mode,
    )
    order = torch.channels_last if channels_last else torch.contiguous_format
    model = nn.Sequential(nn.Conv2d(2, groups * inside, 1), layer).to(memory_format=order)
    images = torch.randn(batch, 2, *size).to(memory_format=order)
    assert_agrees(model, random_losses(model, images), (1, batch))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [2, 3, (4, 1)])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_padding_by_name(padding, kernel, padding_mode):
    model = nn.Conv2d(3, 4, kernel, padding=padding, padding_mode=padding_mode, dilation=2)
    assert_agrees(model, random_losses(model, torch.randn(3, 3, 9, 8)))


def test_depthwise(slices):
    model = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 12, 3, groups=6))
    assert_agrees(model, random_losses(model, torch.randn(3, 6, 7, 7)), (1, 3))


def test_one_by_one(slices):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), nn.Conv2d(8, 2, 1, stride=2, bias=False))
    assert_agrees(model, random_losses(model, torch.randn(4, 3, 6, 5)), (1, 2))


def test_a_single_position_and_many_channels(slices):
    model = nn.Conv2d(12, 24, 3)
    assert_agrees(model, random_losses(model, torch.randn(4, 12, 3, 3)), (1, 2, 4))


def test_an_input_that_is_a_view():
    model = nn.Conv2d(3, 4, 3)
    images = torch.randn(3, 8, 7, 7)[:, 2:5].transpose(2, 3)
    assert_agrees(model, random_losses(model, images))


def test_single_precision_channels_last(slices):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=2)).float()
    model = model.to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 9, 9, dtype=torch.float32).to(memory_format=torch.channels_last)
    assert_agrees(model, random_losses(model, images), (1, 2))
