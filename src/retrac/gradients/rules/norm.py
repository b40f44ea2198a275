"""Normalisation layers: the gradient of the scale is the output's times the normalised input."""

import torch.nn.functional as F
from torch import Tensor, nn

from retrac.gradients.gradient import Dense, Gradient
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call, rule


@rule(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Scale and shift by channel; summed over positions."""
    normalised = F.group_norm(call.input, layer.num_groups, eps=layer.eps)

    def by_sample(values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], -1).sum(2)

    return {
        "weight": Dense(by_sample(output_gradient * normalised), Layout.of(layer.weight)),
        "bias": Dense(by_sample(output_gradient), Layout.of(layer.bias)),
    }


@rule(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Scale and shift by element of the normalised shape; summed over positions."""
    batch, size = len(output_gradient), layer.weight.numel()
    normalised = F.layer_norm(call.input, layer.normalized_shape, eps=layer.eps)

    def by_sample(values: Tensor) -> Tensor:
        return values.reshape(batch, -1, size).sum(1)

    gradients: dict[str, Gradient] = {
        "weight": Dense(by_sample(output_gradient * normalised), Layout.of(layer.weight))
    }
    if layer.bias is not None:
        gradients["bias"] = Dense(by_sample(output_gradient), Layout.of(layer.bias))
    return gradients
