"""Scores that no method of attribution is needed for: what a method has to beat."""

from collections.abc import Iterator

import numpy as np

from retrac.attribution.asked import Queries
from retrac.attribution.config import ComputeConfig
from retrac.diffusion.device import choose_device
from retrac.evaluation.gradient_norms import gradient_norms
from retrac.evaluation.losses import training_losses
from retrac.evaluation.patches import patch_scores
from retrac.progress import progress
from retrac.training.run import Run

RANDOM, PIXELS, PATCHES = "random", "pixels", "patches"
LOSS, NORM = "training loss", "gradient norm"
"""The same for every query."""
NAMES = (RANDOM, PIXELS, PATCHES, LOSS, NORM)
CHUNK = 1024
"""Samples that are compared at a time."""


def random_scores(queries: int, samples: int, seed: int = 0) -> np.ndarray:
    """Standard normal `[Q, N]`."""
    return np.random.default_rng([seed, queries, samples]).standard_normal((queries, samples))


def pixel_scores(queries: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Nearness in pixels: minus the root mean square difference, in [-1, 0].

    Args:
        queries: uint8 `[Q, C, H, W]`.
        samples: uint8 `[N, C, H, W]`.

    Returns:
        `[Q, N]`.
    """
    return np.concatenate([_nearness(queries, some) for some in _chunks(samples)], axis=1)


def pixel_oddness(samples: np.ndarray) -> np.ndarray:
    """How far the nearest other sample is in pixels, `[N]`; 0 where there is no other."""
    found, start = [], 0
    for some in _chunks(samples):
        nearness = pixel_scores(some, samples)
        nearness[np.arange(len(some)), start + np.arange(len(some))] = -np.inf
        found.append(-nearness.max(1))
        start += len(some)
    return np.nan_to_num(np.concatenate(found), posinf=0.0)


def pixel_products(queries: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Cosines of images in [-1, 1] as vectors, `[Q, N]`."""
    asked = _unit(queries)
    return np.concatenate([asked @ _unit(some).T for some in _chunks(samples)], axis=1)


def same_scores(values: np.ndarray, queries: int) -> np.ndarray:
    """Something of the samples `[N]`, such as their losses, for every query, `[Q, N]`."""
    return np.broadcast_to(values, (queries, len(values)))


def baselines(
    run: Run, queries: Queries, compute: ComputeConfig | None = None
) -> dict[str, np.ndarray]:
    """All of them by name, `[Q, N]` each.

    Args:
        run: a training run.
        queries: that are put to it.
        compute: where, and in how much memory.

    Raises:
        RetracError: as `gradient_norms`.
    """
    images, samples, count = queries.images, run.dataset.images, len(queries)
    compute = compute or ComputeConfig()
    with progress("patches", count, "queries") as advance:
        patches = patch_scores(images, samples, choose_device(compute.device), advance=advance)
    return {
        RANDOM: random_scores(count, len(samples)),
        PIXELS: pixel_scores(images, samples),
        PATCHES: patches,
        LOSS: same_scores(training_losses(run, compute), count),
        NORM: same_scores(gradient_norms(run, compute), count),
    }


def _chunks(samples: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), CHUNK):
        yield samples[start : start + CHUNK]


def _nearness(queries: np.ndarray, samples: np.ndarray) -> np.ndarray:
    # Whole numbers, whose sums are exact: equal images differ by nothing on any machine.
    one, two = (images.reshape(len(images), -1).astype(float) for images in (queries, samples))
    squared = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    return -np.sqrt(squared / one.shape[1]) / 255


def _unit(images: np.ndarray) -> np.ndarray:
    rows = images.reshape(len(images), -1) / 127.5 - 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
