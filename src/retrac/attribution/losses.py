"""What a model loses on images, over the draws of a plan."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.asked import Asked
from retrac.attribution.plan import Plan
from retrac.diffusion.loss import Loss
from retrac.diffusion.shown import Shown

ROWS = 512
"""Images in a pass, at the most."""


@torch.no_grad()
def mean_losses(
    model: nn.Module,
    objective: Loss,
    plan: Plan,
    queries: Asked,
    rows: int = ROWS,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """The loss of each image, a mean over the plan's draws.

    The draws are a function of the plan and the image, so that models are compared at the same
    ones.

    Args:
        model: the network.
        objective: the run's loss.
        plan: timesteps and noises.
        queries: Q of them, on the CPU.
        rows: images in a pass.
        advance: told how many images are done.

    Returns:
        float64 `[Q]`.
    """
    device = next(model.parameters()).device
    return mean_over_draws(
        lambda shown: objective.losses(model, *shown.on(device)), plan, queries, rows, advance
    )


def mean_over_draws(
    measure: Callable[[Shown], Tensor],
    plan: Plan,
    queries: Asked,
    rows: int,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Something of each image, a mean over the plan's draws.

    Args:
        measure: `[B]`, of B passes.
        plan, queries, rows, advance: as of `mean_losses`.

    Returns:
        float64 `[Q]`.
    """
    moments = plan.timesteps.repeat_interleave(plan.noises)
    draws = len(moments)
    found = []
    size = max(1, rows // draws)
    for start in range(0, queries.size, size):
        some = queries.rows(slice(start, start + size))
        same = some.at(slice(None), len(plan.timesteps)).repeated(plan.noises)
        every = Shown(same, moments.repeat(some.size), some.noises(plan).flatten(0, 2))
        values = [measure(part).cpu() for part in every.split(rows)]
        found.append(torch.cat(values).double().view(some.size, draws).mean(1))
        advance(some.size)
    return torch.cat(found).numpy()
