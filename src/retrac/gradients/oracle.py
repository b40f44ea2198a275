"""The slow, obviously right way: one sample at a time, by `torch.autograd.grad`."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def per_sample_gradients(
    model: nn.Module, per_sample_losses: Callable[[], Tensor]
) -> dict[str, Tensor]:
    """Every sample's whole gradient, `[B, *parameter.shape]` for each trainable parameter's name.

    Args:
        model: any module; its parameters with `requires_grad` are the parameters.
        per_sample_losses: runs the forward pass and returns the B losses.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    losses = per_sample_losses()
    rows = [
        torch.autograd.grad(
            loss, list(parameters.values()), retain_graph=True, materialize_grads=True
        )
        for loss in losses
    ]
    return {
        name: torch.stack(gradients)
        for name, gradients in zip(parameters, zip(*rows, strict=True), strict=True)
    }


def dots_and_norms(
    model: nn.Module,
    per_sample_losses: Callable[[], Tensor],
    directions: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """As `retrac.gradients.dots_and_norms`, with whole gradients in memory.

    Returns:
        `dots [B, M]` and `squared_norms [B]`.
    """
    gradients = per_sample_gradients(model, per_sample_losses)
    flat = torch.cat([gradient.reshape(len(gradient), -1) for gradient in gradients.values()], 1)
    rows = torch.cat(
        [
            directions[name].reshape(len(directions[name]), gradients[name][0].numel())
            for name in gradients
        ],
        1,
    )
    return flat @ rows.T, flat.square().sum(1)
