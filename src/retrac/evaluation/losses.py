"""What a model loses on images, over many fixed draws."""

import numpy as np
import torch
from torch import Tensor, nn

from retrac.diffusion.loss import Objective, fast_memory_format
from retrac.influence.plan import Plan

ROWS = 512
"""Images in a pass."""


@torch.no_grad()
def mean_losses(model: nn.Module, objective: Objective, plan: Plan, images: Tensor) -> np.ndarray:
    """The loss of each image, a mean over the plan's draws.

    The draws are a function of the plan and the image, so that models are compared at the same
    ones.

    Args:
        model: the network.
        objective: the run's loss.
        plan: timesteps and noises.
        images: `[Q, C, H, W]` in [-1, 1], on the CPU.

    Returns:
        float64 `[Q]`.
    """
    device = next(model.parameters()).device
    moments = plan.timesteps.repeat_interleave(plan.noises)
    found = []
    for image in images:
        noise = plan.draw(image).flatten(0, 1)
        total = 0.0
        for t, e in zip(moments.split(ROWS), noise.split(ROWS), strict=True):
            same = fast_memory_format(image.expand(len(e), *image.shape).to(device))
            some = fast_memory_format(e.to(device))
            total += float(objective.losses(model, same, t.to(device), some).double().sum())
        found.append(total / len(noise))
    return np.array(found)
