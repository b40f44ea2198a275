"""Scores that need no gradient: what a method has to beat."""

from collections.abc import Iterator

import numpy as np

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


def loss_scores(losses: np.ndarray, queries: int) -> np.ndarray:
    """The samples' training losses `[N]`, the same for every query, `[Q, N]`."""
    return np.broadcast_to(losses, (queries, len(losses)))


def baselines(
    queries: np.ndarray, samples: np.ndarray, losses: np.ndarray
) -> dict[str, np.ndarray]:
    """All of them by name, `[Q, N]` each.

    Args:
        queries: uint8 `[Q, C, H, W]`.
        samples: uint8 `[N, C, H, W]`.
        losses: `[N]`, the samples' training losses.
    """
    return {
        "random": random_scores(len(queries), len(samples)),
        "pixels": pixel_scores(queries, samples),
        "training loss": loss_scores(losses, len(queries)),
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
