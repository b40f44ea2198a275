"""Scores that need no gradient: what a method has to beat."""

import numpy as np


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
    one, two = (
        images.reshape(len(images), -1).astype(float) / 255 for images in (queries, samples)
    )
    squared = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    return -np.sqrt(np.maximum(squared, 0) / one.shape[1])


def pixel_products(queries: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Cosines of images in [-1, 1] as vectors, `[Q, N]`."""
    first, second = (_unit(side.reshape(len(side), -1) / 127.5 - 1) for side in (queries, samples))
    return first @ second.T


def loss_scores(losses: np.ndarray, queries: int) -> np.ndarray:
    """The samples' training losses `[N]`, the same for every query, `[Q, N]`."""
    return np.broadcast_to(losses, (queries, len(losses)))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
