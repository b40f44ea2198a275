"""Nearness in patches: what a denoiser that knows only the training set makes of a query.

Of all denoisers that see no more than a patch, the best mixes the training set's patches, weighted
by a softmax (Kamb & Ganguli 2024). How much of the mixture is a sample's says how near it is:
nonparametric data attribution (Zhao et al. 2025, arXiv:2510.14269), written from its formula.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d

LARGEST = 32
"""Pixels of the longer side; larger images are shrunk to it."""
STEPS = 8
"""A query's patches lie an eighth of its side apart: side by side in pixels up to 15 of them."""
WEIGHTS = 2**22
"""Weights in memory at a time, at the most, where one sample has no more."""


@dataclass(frozen=True)
class Scale:
    """Patches of one size, at one level of noise.

    Attributes:
        part: the image's side is so many of a patch's.
        timestep: how far the query is noised, in the 1,000 steps of `signal`.
    """

    part: int
    timestep: int


SCALES = (Scale(4, 100), Scale(2, 200))
"""Quarters and halves of the side, about the 7 and 14 of 32 pixels that were published; larger
patches at more noise. Shifted and noisy copies of digits (none of the benchmark's) and photos lead
to their originals at these timesteps; those of 8x8 digits do so less and less at later ones."""


def signal(timestep: int) -> float:
    """What is left of an image's variance, ᾱ, after so many of 1,000 steps whose β rise in a line
    from 0.0001 to 0.02 (DDPM, Ho et al. 2020), whatever the schedule of the run."""
    return float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[:timestep]))


def patch_scores(
    queries: np.ndarray,
    samples: np.ndarray,
    device: torch.device | None = None,
    scales: Sequence[Scale] = SCALES,
    weights: int = WEIGHTS,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Shares of the samples in what such a denoiser makes of each query; rows add up to 1.

    A patch x of the noised query gives a weight to every patch y of every sample, wherever it
    lies, as softmax(−‖x − √ᾱ y‖² / (2 (1 − ᾱ))) over all of them together. A sample's share is the
    sum of its patches' weights, a mean over the query's patches and over the scales. (In the paper
    x has one draw of noise, and of a sample's weights the 100 largest count. Here x = √ᾱ times the
    query's patch, so that nothing depends on luck, and all weights count.)

    Args:
        queries: uint8 `[Q, C, H, W]`.
        samples: uint8 `[N, C, H, W]`.
        device: where to compute; the CPU by default.
        scales: mixed in equal parts.
        weights: in memory at a time.
        advance: told how many queries are done.

    Returns:
        float64 `[Q, N]`.
    """
    samples, found = _shrunk(samples), []
    for query in _pixels(_shrunk(queries)).to(device or "cpu"):
        found.append(np.mean([_shares(query, samples, scale, weights) for scale in scales], axis=0))
        advance(1)
    return np.stack(found)


def _shares(query: Tensor, samples: np.ndarray, scale: Scale, weights: int) -> np.ndarray:
    """The samples' shares `[N]` in a query `[C, H, W]` at one scale.

    ‖x − √ᾱ y‖² without its ‖x‖², which changes no softmax, is a convolution and a sum of squares.
    """
    height, width = query.shape[1:]
    size, step = (max(1, min(height, width) // parts) for parts in (scale.part, STEPS))
    patches = query.unfold(1, size, step).unfold(2, size, step).flatten(1, 2).transpose(0, 1)
    positions = (height - size + 1) * (width - size + 1)
    rows = max(1, weights // (len(patches) * positions))
    kept = signal(scale.timestep)
    found = []
    # Of shorter numbers (tf32) the differences between patches would not survive.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        for start in range(0, len(samples), rows):
            some = _pixels(samples[start : start + rows]).to(query.device)
            squares = avg_pool2d(some.square().sum(1, keepdim=True), size, 1) * size**2
            nearness = (conv2d(some, patches) - squares / 2) * (kept / (1 - kept))
            found.append(nearness.flatten(2).logsumexp(2).cpu().double())  # [rows, patches]
    return torch.cat(found).softmax(0).mean(1).numpy()


def _pixels(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.astype(np.float32)) / 127.5 - 1


def _shrunk(images: np.ndarray) -> np.ndarray:
    """No side longer than `LARGEST`, by means over pixels."""
    sides = images.shape[2:]
    shrinking = max(sides) / LARGEST
    if shrinking <= 1:
        return images
    height, width = (max(1, round(side / shrinking)) for side in sides)
    return np.concatenate(
        [
            adaptive_avg_pool2d(torch.from_numpy(image.astype(np.float32)), (height, width))
            .round()
            .byte()
            .numpy()[None]
            for image in images
        ]
    )
