"""Noise schedules, as diffusers schedulers."""

import math

import numpy as np
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin

from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.process import Process
from retrac.errors import RetracError

PREDICTION_TYPES = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}


def make_scheduler(objective: ObjectiveConfig) -> DDPMScheduler:
    """Build the training scheduler; its `alphas_cumprod [T]` are ᾱ."""
    betas = {
        "linear": {"beta_schedule": "linear"},
        "cosine": {"beta_schedule": "squaredcos_cap_v2"},
        "clipped-cosine": {"trained_betas": clipped_cosine_betas(objective.timesteps).tolist()},
    }[objective.schedule]
    return DDPMScheduler(
        num_train_timesteps=objective.timesteps,
        prediction_type=PREDICTION_TYPES[objective.prediction],
        **betas,
    )


def process_of(scheduler: SchedulerMixin) -> Process:
    """The forward process that a diffusers scheduler belongs to, with all weights 1.

    Raises:
        RetracError: it is of a kind that is not known here.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        if scheduler.config.use_dynamic_shifting:  # its σ follow the resolution, in generation only
            scheduler = FlowMatchEulerDiscreteScheduler(scheduler.config.num_train_timesteps)
        return Process.flow(scheduler.sigmas.flip(0), scheduler.timesteps.flip(0))
    prediction = {told: name for name, told in PREDICTION_TYPES.items()}.get(
        str(scheduler.config.get("prediction_type"))
    )
    alphas_bar = getattr(scheduler, "alphas_cumprod", None)
    if alphas_bar is None or prediction is None:
        raise RetracError(
            f"the scheduler {type(scheduler).__name__} (prediction_type "
            f"{scheduler.config.get('prediction_type')!r}) is of no process known here: known are "
            f"those with alphas_cumprod that predict {', '.join(PREDICTION_TYPES.values())}, and "
            "FlowMatchEulerDiscreteScheduler"
        )
    return Process.diffusion(alphas_bar, prediction)


def clipped_cosine_betas(timesteps: int, least: float = 0.0001, most: float = 0.02) -> np.ndarray:
    """Betas of the cosine schedule (Nichol and Dhariwal 2021, eq. 17), from `least` to `most`.

    The published ReTrac code clips at 0.0001 and 0.02, so that there is half as much noise again
    at the first timestep, and ᾱ ends near 0.003 instead of 0.

    Returns:
        float32 `[timesteps]`.
    """

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = np.arange(timesteps) / timesteps
    betas = [1 - alpha_bar(t + 1 / timesteps) / alpha_bar(t) for t in steps]
    return np.clip(betas, least, most).astype(np.float32)
