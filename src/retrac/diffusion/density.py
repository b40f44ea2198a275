"""How training draws the timesteps of a flow: some more often than others."""

import math
from collections.abc import Callable, Mapping

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from retrac.diffusion.schedule import process_of
from retrac.errors import RetracError, unknown

MODE = 1.29
"""Scale s of "mode", as diffusers' training scripts have it."""


def _uniform(shares: Tensor) -> Tensor:
    return shares


def _logit_normal(shares: Tensor) -> Tensor:
    return torch.special.ndtri(shares).sigmoid()


def _mode(shares: Tensor) -> Tensor:
    low = 1 - shares - MODE * ((math.pi * shares / 2).cos().square() - 1 + shares)
    return 1 - low


DENSITIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "uniform": _uniform,
    "logit-normal": _logit_normal,
    "mode": _mode,
}
"""By name, the quantile function: of each share in (0, 1) how far between sample and noise the
timestep lies below which that share of draws falls (Esser et al. 2024, section 3.1; mean 0 and
deviation 1)."""


def drawn_as(density: str, timesteps: int) -> Tensor:
    """The timesteps `[T]` int64, rising, that stand for T equally likely draws.

    Raises:
        RetracError: an unknown density.
    """
    if density not in DENSITIES:
        raise unknown("density", density, DENSITIES)
    shares = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps
    return (DENSITIES[density](shares) * timesteps).long().clamp(0, timesteps - 1)


def flow_moments(
    scheduler: SchedulerMixin, timesteps: Tensor, density: str = "uniform"
) -> tuple[Tensor, Tensor]:
    """Where the events of a `Ledger` stand on a flow, for a training loop of your own.

    Args:
        scheduler: `FlowMatchEulerDiscreteScheduler`, of the training.
        timesteps: `[B]`, of `Ledger.events`.
        density: as `retrac adopt --density` will be told.

    Returns:
        σ `[B]`, and what the network is told `[B]`, in thousandths as of `scheduler.timesteps`:
        a sample is seen as `(1 - σ) x + σ ε`.

    Raises:
        RetracError: an unknown density, or a scheduler of something else.
    """
    process = process_of(scheduler)
    if process.prediction != "velocity":
        raise RetracError(f"{type(scheduler).__name__} is of no flow, but of a diffusion")
    places = drawn_as(density, process.timesteps)[timesteps.cpu()]
    found = process.spread[places], process.told[places]
    return found[0].to(timesteps.device), found[1].to(timesteps.device)
