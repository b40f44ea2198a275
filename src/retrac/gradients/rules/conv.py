"""Two-dimensional convolutions: a linear layer on the patches under the kernel."""

from torch import Tensor, nn

from retrac.gradients.gradient import Dense, Factored, Gradient
from retrac.gradients.inputs import Inputs, Patches, Plain
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call, rule


@rule(nn.Conv2d)
def conv2d(layer: nn.Conv2d, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Any stride, padding, dilation and groups."""
    groups = layer.groups
    batch, outputs, height, width = output_gradient.shape
    pixels = output_gradient.reshape(batch, outputs, height * width)
    b = pixels.unflatten(1, (groups, -1)).mT  # as they lie in memory, whichever way
    inputs = _inputs(layer, call.input, (height, width))
    (down, right), bands = layer.kernel_size, inputs.bands
    # Channels last, as pixels lie in memory.
    layout = Layout(
        (groups, bands, outputs // groups, down // bands, right, layer.in_channels // groups),
        (0, 2, 5, 1, 3, 4),
        tuple(layer.weight.shape),
    )
    weight = Factored(inputs, b, layout)
    gradients: dict[str, Gradient] = {"weight": weight}
    if layer.bias is not None and layer.bias.requires_grad:
        gradients["bias"] = Dense(pixels.sum(2), Layout.of(layer.bias))
    return gradients


def _inputs(layer: nn.Conv2d, images: Tensor, size: tuple[int, int]) -> Inputs:
    padding = tuple(layer._reversed_padding_repeated_twice)
    if tuple(layer.kernel_size) == tuple(layer.stride) == (1, 1) and not any(padding):
        return Plain(images.flatten(2).unflatten(1, (layer.groups, -1)).mT)
    return Patches(
        images,
        size,
        _pair(layer.kernel_size),
        _pair(layer.stride),
        _pair(layer.dilation),
        padding,
        "constant" if layer.padding_mode == "zeros" else layer.padding_mode,
        layer.groups,
    )


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    down, right = sizes
    return down, right
