"""What a model loses on images, over many fixed draws."""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from retrac.attribution.asked import Asked
from retrac.attribution.config import ComputeConfig, PlanConfig
from retrac.attribution.losses import ROWS, mean_losses
from retrac.attribution.memory import rows_within
from retrac.attribution.plan import Plan
from retrac.attribution.queries import training_samples
from retrac.diffusion.device import choose_device, placed
from retrac.progress import progress
from retrac.training.run import Run


def measuring_plan(run: Run, timesteps: int, noises: int) -> Plan:
    """Draws at which models are compared; of no seed that a query plan has by default."""
    return Plan.of(PlanConfig(timesteps, noises, plan_seed=2**32), run.timesteps)


def last_losses(
    run: Run,
    plan: Plan,
    queries: Iterable[Asked],
    compute: ComputeConfig | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """The loss of each image at a run's last checkpoint, `[Q]`.

    Args:
        run: a training run.
        plan: timesteps and noises.
        queries: some after the other.
        compute: where, and in how much memory.
        advance: told how many images are done.

    Raises:
        RetracError: the device is not there, or the memory cannot hold one image.
    """
    compute = compute or ComputeConfig()
    device = choose_device(compute.device)
    network = placed(run.checkpoints[-1].load(run.shape), device, compute.precision)
    rows = min(ROWS, rows_within(network, run.objective, run.example, compute))
    found = [mean_losses(network, run.objective, plan, some, rows, advance) for some in queries]
    return np.concatenate(found)


def training_losses(run: Run, compute: ComputeConfig | None = None) -> np.ndarray:
    """What the last checkpoint loses on each training sample, `[N]`, over a few fixed draws."""
    plan = Plan.of(PlanConfig(plan="fast"), run.timesteps)
    with progress("training losses", len(run.dataset), "samples") as advance:
        return last_losses(run, plan, every_sample(run, plan), compute, advance)


def every_sample(run: Run, plan: Plan) -> Iterator[Asked]:
    """All training samples as queries, some after the other."""
    size = len(run.dataset)
    for piece in np.array_split(np.arange(size), math.ceil(size / ROWS)):
        yield training_samples(run, "", piece).asked(run, plan)
