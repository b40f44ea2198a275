"""Generation, in which image i depends on the seed and on i alone."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor, nn

from retrac.diffusion.calls import Call, Conditions, unet
from retrac.diffusion.samplers import Sampler, Step, sampler_of
from retrac.diffusion.shown import fast_memory_format
from retrac.errors import RetracError
from retrac.progress import progress

BATCH = 16
"""Images at a time, where they are small."""


@dataclass(frozen=True, eq=False)
class Making:
    """What generating takes besides a network.

    Attributes:
        scheduler: of the training; its schedule and prediction type are used.
        shape: of one sample's noise.
        call: how the network is called.
        conditions: what it is told of images with these labels.
        nothing: what it is told of so many images without a condition, for guidance; None where
            it knows no such thing.
        decode: makes images in [-1, 1] of what it made.
        together: images at a time; a fixed number, for rounding too depends on it.
    """

    scheduler: SchedulerMixin
    shape: tuple[int, int, int]
    call: Call = unet
    conditions: Callable[[Sequence[str]], Conditions] = lambda labels: {}
    nothing: Callable[[int], Conditions] | None = None
    decode: Callable[[Tensor], Tensor] = lambda made: made
    together: int = BATCH


class Made(NamedTuple):
    """n images, and the way there.

    Attributes:
        images: uint8 `[n, C, H, W]`.
        timesteps: `[steps]`, falling: what the network was told at each step.
        clean: `[n, steps, …]`, the sample that each step's prediction pointed to, as the network
            sees samples; None where it was not asked for.
    """

    images: np.ndarray
    timesteps: Tensor
    clean: Tensor | None


@torch.no_grad()
def sample(
    model: nn.Module,
    making: Making,
    indices: Sequence[int],
    seed: int,
    steps: int = 50,
    eta: float = 0.0,
    guidance: float = 1.0,
    labels: Sequence[str] | None = None,
    keep: bool = False,
    shown: bool = True,
) -> Made:
    """Sample images by DDIM, or of flows by Euler's method.

    Args:
        model: the denoiser.
        making: how it is used.
        indices: which images of the seed to make; image i is the same in every call.
        seed: of starting noise and, for eta > 0, of the noise on the way.
        steps: of the sampler.
        eta: 0 for deterministic sampling, 1 for as much noise as DDPM; flows have none.
        guidance: how much further than without a condition the prediction goes (Ho and Salimans
            2022); 1 for none.
        labels: of each image, from which its conditions are made; none by default.
        keep: keep what every step pointed to.
        shown: show a progress bar.

    Raises:
        RetracError: a negative seed, or guidance of a network that knows no absent condition.
    """
    if seed < 0:
        raise RetracError(f"the seed of generated images must be at least 0, not {seed}")
    if not math.isfinite(guidance):
        raise RetracError(f"the guidance must be a number, not {guidance}")
    if guidance != 1 and making.nothing is None:
        raise RetracError(
            f"a guidance of {guidance:g} needs a network that was trained with and without a "
            "condition, which this one is not: leave it at 1"
        )
    device = next(model.parameters()).device
    sampler = sampler_of(making.scheduler, steps, eta, making.shape, device)
    labels, together = labels or ("",) * len(indices), making.together
    made: list[np.ndarray] = []
    paths: list[Tensor] = []
    with progress("generate", len(indices), "images", shown=shown) as advance:
        for start in range(0, len(indices), together):
            wanted = list(range(start, min(start + together, len(indices))))
            padded = wanted + [wanted[-1]] * (together - len(wanted))
            noises = [_generator(seed, indices[place]) for place in padded]
            told = [_on(device, making.conditions([labels[place] for place in padded]))]
            if guidance != 1 and making.nothing is not None:
                told.append(_on(device, making.nothing(together)))
            path = []
            for step in _steps(model, making, sampler, told, guidance, noises, eta > 0):
                if keep:
                    path.append(step.clean[: len(wanted)].cpu())
            if keep:
                paths.append(torch.stack(path, 1))
            made.append(_to_uint8(making.decode(step.following)[: len(wanted)]))
            advance(len(wanted))
    images = np.concatenate(made) if made else np.zeros((0, *making.shape), np.uint8)
    return Made(images, sampler.timesteps.cpu(), torch.cat(paths) if paths else None)


def _steps(
    model: nn.Module,
    making: Making,
    sampler: Sampler,
    told: Sequence[Conditions],
    guidance: float,
    noises: list[np.random.Generator],
    noisily: bool,
) -> Iterator[Step]:
    """From noise to samples; `told` are conditions, and those of their absence where it guides."""
    device = sampler.timesteps.device
    noisy = _noise(noises, making.shape).to(device)
    for place, timestep in enumerate(sampler.timesteps):
        given = fast_memory_format(noisy)
        prediction, *without = (making.call(model, given, timestep, each) for each in told)
        for other in without:
            prediction = other + guidance * (prediction - other)
        fresh = _noise(noises, making.shape).to(device) if noisily else None
        step = sampler.step(prediction, place, noisy, fresh)
        noisy = step.following
        yield step


def _on(device: torch.device, conditions: Conditions) -> Conditions:
    return {name: value.to(device) for name, value in conditions.items()}


def _generator(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))


def _noise(generators: list[np.random.Generator], shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(
        np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators])
    )


def _to_uint8(images: Tensor) -> np.ndarray:
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
