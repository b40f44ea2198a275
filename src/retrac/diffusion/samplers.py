"""The steps by which noise becomes a sample: of diffusion and of flow matching."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from torch import Tensor

PATCH = 2
"""Side of the patches by which flows count the size of an image."""


class Step(NamedTuple):
    """What one step makes of a noisy sample.

    Attributes:
        clean: the sample that the prediction points to, x̂_0.
        following: the less noisy sample, with which the next step begins.
    """

    clean: Tensor
    following: Tensor


class Sampler(Protocol):
    """A number of steps, which are taken one after the other."""

    @property
    def timesteps(self) -> Tensor:
        """`[steps]`, falling: what the network is told of each."""
        ...

    def step(self, prediction: Tensor, place: int, noisy: Tensor, noise: Tensor | None) -> Step:
        """Take one.

        Args:
            prediction: of the network.
            place: of the step among all of them.
            noisy: the sample before it.
            noise: fresh, for samplers that are told to use some.
        """
        ...


class Diffusing:
    """DDIM (Song et al. 2021), from the last timestep on.

    Args:
        scheduler: of the training.
        steps: how many.
        eta: 0 for deterministic sampling, 1 for as much noise as DDPM.
        device: of the samples.
    """

    def __init__(
        self, scheduler: SchedulerMixin, steps: int, eta: float, device: torch.device
    ) -> None:
        told = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
        config = {"clip_sample": False, **told}  # which some schedulers do not know
        self._sampler = DDIMScheduler.from_config(
            config,
            timestep_spacing="trailing",
            trained_betas=scheduler.betas.tolist(),  # DDIM does not know every schedule
            rescale_betas_zero_snr=False,  # they are
        )
        self._sampler.set_timesteps(steps, device=device)
        self._eta = eta
        self.timesteps: Tensor = self._sampler.timesteps

    def step(self, prediction: Tensor, place: int, noisy: Tensor, noise: Tensor | None) -> Step:
        """As `Sampler.step`."""
        found = self._sampler.step(
            prediction, self.timesteps[place], noisy, eta=self._eta, variance_noise=noise
        )
        return Step(found.pred_original_sample, found.prev_sample)


class Flowing:
    """Euler's method along the velocity (Lipman et al. 2023), shifted as the scheduler says.

    Args:
        scheduler: of the training.
        steps: how many.
        shape: of one sample; larger ones are shifted more by some schedulers.
        device: of the samples.
    """

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        steps: int,
        shape: tuple[int, int, int],
        device: torch.device,
    ) -> None:
        config, patches = scheduler.config, shape[1] * shape[2] // PATCH**2
        few, many = config.base_image_seq_len, config.max_image_seq_len
        rise = (config.max_shift - config.base_shift) / (many - few)
        shift = config.base_shift + rise * (patches - few)
        sampler = FlowMatchEulerDiscreteScheduler.from_config(config)
        sampler.set_timesteps(
            sigmas=np.linspace(1, 1 / steps, steps),
            device=device,
            mu=shift if config.use_dynamic_shifting else None,
        )
        self.timesteps: Tensor = sampler.timesteps
        self._sigmas: Tensor = sampler.sigmas.to(device)

    def step(self, prediction: Tensor, place: int, noisy: Tensor, noise: Tensor | None) -> Step:
        """As `Sampler.step`; `noise` is not used."""
        sigma, following = self._sigmas[place], self._sigmas[place + 1]
        return Step(noisy - sigma * prediction, noisy + (following - sigma) * prediction)


def sampler_of(
    scheduler: SchedulerMixin,
    steps: int,
    eta: float,
    shape: tuple[int, int, int],
    device: torch.device,
) -> Sampler:
    """The sampler of a scheduler's process."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return Flowing(scheduler, steps, shape, device)
    return Diffusing(scheduler, steps, eta, device)
