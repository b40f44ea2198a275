"""How large the samples' gradients are: the control for methods that rank by size alone."""

import numpy as np
from torch import Tensor

from retrac.attribution.config import ComputeConfig, PlanConfig
from retrac.attribution.losses import mean_over_draws
from retrac.attribution.memory import rows_within
from retrac.attribution.plan import Plan
from retrac.diffusion.device import choose_device, placed
from retrac.diffusion.shown import Shown
from retrac.evaluation.losses import every_sample
from retrac.gradients import squared_norms
from retrac.progress import progress
from retrac.training.run import Run

DRAWS = PlanConfig(plan_timesteps=5, plan_noises=2)
"""Few: each costs a backward pass of every sample."""


def gradient_norms(
    run: Run, compute: ComputeConfig | None = None, draws: PlanConfig = DRAWS
) -> np.ndarray:
    """‖∇L(θ; x_i, t, ε)‖ of each training sample at the last checkpoint, `[N]`.

    Over all trained parameters together; a mean over a few fixed draws of (t, ε).

    Args:
        run: a training run.
        compute: where, and in how much memory.
        draws: timesteps and noises.

    Raises:
        RetracError: the device is not there, the memory cannot hold one image, or a gradient would
            be incomplete.
    """
    compute = compute or ComputeConfig()
    device, objective = choose_device(compute.device), run.objective
    network = placed(run.checkpoints[-1].load(run.shape), device, compute.precision)
    rows = rows_within(network, objective, run.example, compute)
    plan = Plan.of(draws, run.timesteps)

    def measure(shown: Shown) -> Tensor:
        given = shown.on(device)
        return squared_norms(network, lambda: objective.losses(network, *given)).sqrt()

    with progress("gradient norms", len(run.dataset), "samples") as advance:
        found = [
            mean_over_draws(measure, plan, some, rows, advance) for some in every_sample(run, plan)
        ]
    return np.concatenate(found)
