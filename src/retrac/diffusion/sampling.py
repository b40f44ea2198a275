"""Generation by DDIM, in which image i depends on the seed and on i alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor, nn

from retrac.diffusion.calls import Call, Conditions, unet
from retrac.diffusion.shown import fast_memory_format
from retrac.errors import RetracError
from retrac.progress import progress

BATCH = 16
"""Images at a time; a fixed number, for rounding too depends on it."""


@dataclass(frozen=True, eq=False)
class Making:
    """What generating takes besides a network.

    Attributes:
        scheduler: of the training; its schedule and prediction type are used.
        shape: of one sample's noise.
        call: how the network is called.
        conditions: what it is told of the images with these numbers.
        decode: makes images in [-1, 1] of what it made.
    """

    scheduler: SchedulerMixin
    shape: tuple[int, int, int]
    call: Call = unet
    conditions: Callable[[Sequence[int]], Conditions] = lambda indices: {}
    decode: Callable[[Tensor], Tensor] = lambda made: made


@torch.no_grad()
def generate(
    model: nn.Module,
    making: Making,
    indices: Sequence[int],
    seed: int,
    steps: int = 50,
    eta: float = 0.0,
    shown: bool = True,
) -> np.ndarray:
    """Sample images by DDIM (Song et al. 2021).

    Args:
        model: the denoiser.
        making: how it is used.
        indices: which images of the seed to make; image i is the same in every call.
        seed: of starting noise and, for eta > 0, of the noise on the way.
        steps: DDIM steps.
        eta: 0 for deterministic sampling, 1 for as much noise as DDPM.
        shown: show a progress bar.

    Returns:
        uint8 `[len(indices), C, H, W]`.

    Raises:
        RetracError: a negative seed.
    """
    if seed < 0:
        raise RetracError(f"the seed of generated images must be at least 0, not {seed}")
    device = next(model.parameters()).device
    config = {"clip_sample": False, **making.scheduler.config}  # which some schedulers do not know
    sampler = DDIMScheduler.from_config(config, timestep_spacing="trailing")
    sampler.set_timesteps(steps, device=device)
    made: list[np.ndarray] = []
    with progress("generate", len(indices), "images", shown=shown) as advance:
        for start in range(0, len(indices), BATCH):
            wanted = list(indices[start : start + BATCH])
            padded = wanted + [wanted[-1]] * (BATCH - len(wanted))
            generators = [_generator(seed, index) for index in padded]
            images = _noise(generators, making.shape).to(device)
            told = {name: value.to(device) for name, value in making.conditions(padded).items()}
            for timestep in sampler.timesteps:
                given = fast_memory_format(images)
                prediction = making.call(model, given, timestep, told)
                images = sampler.step(
                    prediction,
                    timestep,
                    images,
                    eta=eta,
                    variance_noise=_noise(generators, making.shape).to(device) if eta > 0 else None,
                ).prev_sample
            made.append(_to_uint8(making.decode(images)[: len(wanted)]))
            advance(len(wanted))
    return np.concatenate(made) if made else np.zeros((0, *making.shape), np.uint8)


def _generator(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))


def _noise(generators: list[np.random.Generator], shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(
        np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators])
    )


def _to_uint8(images: Tensor) -> np.ndarray:
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
