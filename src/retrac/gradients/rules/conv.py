"""Two-dimensional convolutions: a linear layer on the patches under the kernel."""

import torch.nn.functional as F
from torch import Tensor, nn

from retrac.gradients.gradient import Dense, Factored, Gradient
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call, rule


@rule(nn.Conv2d)
def conv2d(layer: nn.Conv2d, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Any stride, padding, dilation and groups."""
    groups = layer.groups
    batch, outputs, height, width = output_gradient.shape
    a = patches(layer, call.input, (height, width))
    b = output_gradient.permute(0, 2, 3, 1).reshape(batch, height * width, groups, -1)
    kernel = tuple(layer.kernel_size)
    # Channels last, as the patches lie in memory; the parameter has them second.
    layout = Layout((outputs, *kernel, layer.in_channels // groups), (0, 3, 1, 2))
    gradients: dict[str, Gradient] = {"weight": Factored(a, b.transpose(1, 2), layout)}
    if layer.bias is not None:
        gradients["bias"] = Dense(output_gradient.sum((2, 3)), Layout.of(layer.bias))
    return gradients


def patches(layer: nn.Conv2d, images: Tensor, size: tuple[int, int]) -> Tensor:
    """What the kernel sees at each of its positions, `[B, G, h, w, kh, kw, C/G]`, a view.

    Args:
        layer: the convolution.
        images: its input `[B, C, H, W]`.
        size: height and width of its output.
    """
    padding = layer._reversed_padding_repeated_twice
    if any(padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        images = F.pad(images, padding, mode=mode)
    pixels = images.permute(0, 2, 3, 1).contiguous()
    batch, _, _, channels = pixels.shape
    across = channels // layer.groups
    sample, row, column, _ = pixels.stride()
    (down, right), (apart_y, apart_x) = layer.stride, layer.dilation
    height, width = layer.kernel_size
    return pixels.as_strided(
        (batch, layer.groups, *size, height, width, across),
        (sample, across, row * down, column * right, row * apart_y, column * apart_x, 1),
    )
