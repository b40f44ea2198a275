"""Half-precision weights: what is added up is added up in float32 all the same."""

import torch
from torch import nn

SCALE = 1024.0
"""Of losses ahead of a backward pass in float16, which would lose small gradients."""


def summed_in(weights: torch.dtype) -> torch.dtype:
    """The precision in which gradients of weights are formed and added up."""
    return torch.promote_types(weights, torch.float32)


def loss_scale(model: nn.Module) -> float:
    """By how much losses are multiplied, and gradients divided again."""
    half = any(parameter.dtype == torch.float16 for parameter in model.parameters())
    return SCALE if half else 1.0
