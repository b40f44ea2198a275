"""Normalisation layers: the gradient of the scale is the output's times the normalised input."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrac.gradients.gradient import Dense, Gradient
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call, keeping, rule


def _statistics_of(output: Tensor) -> list[Any]:
    """Mean and 1/deviation of the groups, which autograd has saved for its own backward."""
    return [getattr(output.grad_fn, f"_saved_result{number}", None) for number in (1, 2)]


@rule(nn.GroupNorm)
@keeping(_statistics_of)
def group_norm(layer: nn.GroupNorm, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Scale and shift by channel; summed over positions, before the input is normalised."""
    pixels, given = (
        values.flatten(2).transpose(1, 2) if values.dim() > 2 else values.unsqueeze(1)
        for values in (call.input, output_gradient)
    )
    shift = given.sum(1)
    mean, scale = (numbers.unsqueeze(2) for numbers in _statistics(layer, call))
    along, past = (
        sums.unflatten(1, (layer.num_groups, -1)) for sums in ((given * pixels).sum(1), shift)
    )
    weight = ((along - mean * past) * scale).flatten(1)
    return {
        "weight": Dense(weight, Layout.of(layer.weight)),
        "bias": Dense(shift, Layout.of(layer.bias)),
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


def _statistics(layer: nn.GroupNorm, call: Call) -> tuple[Tensor, Tensor]:
    """Mean and 1/deviation of each sample's groups, `[B, G]`."""
    mean, scale = call.kept
    if mean is not None and scale is not None:
        return mean, scale
    groups = call.input.reshape(len(call.input), layer.num_groups, -1)
    variance, mean = torch.var_mean(groups, dim=2, correction=0)
    return mean, (variance + layer.eps).rsqrt()
