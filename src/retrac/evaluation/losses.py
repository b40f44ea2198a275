"""What a model loses on images, over many fixed draws."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from retrac.diffusion.device import choose_device
from retrac.diffusion.loss import Objective, fast_memory_format
from retrac.influence.config import PlanConfig
from retrac.influence.plan import Plan
from retrac.progress import progress
from retrac.training.run import Run

ROWS = 512
"""Images in a pass."""


@torch.no_grad()
def mean_losses(
    model: nn.Module,
    objective: Objective,
    plan: Plan,
    images: Tensor,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """The loss of each image, a mean over the plan's draws.

    The draws are a function of the plan and the image, so that models are compared at the same
    ones.

    Args:
        model: the network.
        objective: the run's loss.
        plan: timesteps and noises.
        images: `[Q, C, H, W]` in [-1, 1], on the CPU.
        advance: told how many images are done.

    Returns:
        float64 `[Q]`.
    """
    device = next(model.parameters()).device
    moments = plan.timesteps.repeat_interleave(plan.noises)
    draws = len(moments)
    found = []
    for some in images.split(max(1, ROWS // draws)):
        noise = torch.cat([plan.draw(image).flatten(0, 1) for image in some])
        same, at = some.repeat_interleave(draws, 0), moments.repeat(len(some))
        losses = [
            objective.losses(
                model,
                fast_memory_format(x.to(device)),
                t.to(device),
                fast_memory_format(e.to(device)),
            ).cpu()
            for x, t, e in zip(*(each.split(ROWS) for each in (same, at, noise)), strict=True)
        ]
        found.append(torch.cat(losses).double().view(len(some), draws).mean(1))
        advance(len(some))
    return torch.cat(found).numpy()


def measuring_plan(run: Run, timesteps: int, noises: int) -> Plan:
    """Draws at which models are compared; of no seed that a query plan has by default."""
    return Plan.of(PlanConfig(timesteps, noises, plan_seed=2**32), run.config.objective.timesteps)


def training_losses(run: Run) -> np.ndarray:
    """What the last checkpoint loses on each training sample, `[N]`, over a few fixed draws."""
    network = run.checkpoints[-1].load(run.shape).to(choose_device())
    plan = Plan.of(PlanConfig(plan="fast"), run.config.objective.timesteps)
    size = len(run.dataset)
    with progress("training losses", size, "samples") as advance:
        return np.concatenate(
            [
                mean_losses(network, run.objective, plan, run.dataset.tensors(some), advance)
                for some in np.array_split(np.arange(size), math.ceil(size / ROWS))
            ]
        )
