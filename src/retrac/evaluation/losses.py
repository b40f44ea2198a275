"""What a model loses on images, over many fixed draws."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from retrac.diffusion.device import choose_device
from retrac.diffusion.loss import Objective
from retrac.diffusion.shown import Seen, Shown
from retrac.influence.config import ComputeConfig, PlanConfig
from retrac.influence.memory import rows_within
from retrac.influence.plan import Plan
from retrac.progress import progress
from retrac.training.run import Run

ROWS = 512
"""Images in a pass, at the most."""


@torch.no_grad()
def mean_losses(
    model: nn.Module,
    objective: Objective,
    plan: Plan,
    images: Seen,
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
        images: Q of them, on the CPU.
        rows: images in a pass.
        advance: told how many images are done.

    Returns:
        float64 `[Q]`.
    """
    device = next(model.parameters()).device
    moments = plan.timesteps.repeat_interleave(plan.noises)
    draws = len(moments)
    found = []
    size = max(1, rows // draws)
    for start in range(0, images.size, size):
        some = images.rows(slice(start, start + size))
        noise = torch.cat([plan.draw(image).flatten(0, 1) for image in some.clean])
        every = Shown(some.repeated(draws), moments.repeat(some.size), noise)
        losses = [objective.losses(model, *part.on(device)).cpu() for part in every.split(rows)]
        found.append(torch.cat(losses).double().view(some.size, draws).mean(1))
        advance(some.size)
    return torch.cat(found).numpy()


def measuring_plan(run: Run, timesteps: int, noises: int) -> Plan:
    """Draws at which models are compared; of no seed that a query plan has by default."""
    return Plan.of(PlanConfig(timesteps, noises, plan_seed=2**32), run.timesteps)


def last_losses(
    run: Run,
    plan: Plan,
    images: Iterable[Seen],
    compute: ComputeConfig | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """The loss of each image at a run's last checkpoint, `[Q]`.

    Args:
        run: a training run.
        plan: timesteps and noises.
        images: some after the other.
        compute: where, and in how much memory.
        advance: told how many images are done.

    Raises:
        RetracError: the device is not there, or the memory cannot hold one image.
    """
    compute = compute or ComputeConfig()
    network = run.checkpoints[-1].load(run.shape).to(choose_device(compute.device))
    rows = min(ROWS, rows_within(network, run.objective, run.example, compute))
    found = [mean_losses(network, run.objective, plan, some, rows, advance) for some in images]
    return np.concatenate(found)


def training_losses(run: Run, compute: ComputeConfig | None = None) -> np.ndarray:
    """What the last checkpoint loses on each training sample, `[N]`, over a few fixed draws."""
    plan = Plan.of(PlanConfig(plan="fast"), run.timesteps)
    size = len(run.dataset)
    pieces = np.array_split(np.arange(size), math.ceil(size / ROWS))
    labels = run.dataset.labels or ("",) * size
    seen = (
        run.seen(run.dataset.images[piece], [labels[index] for index in piece]) for piece in pieces
    )
    with progress("training losses", size, "samples") as advance:
        return last_losses(run, plan, seen, compute, advance)
