"""Random subsets of the training set, on which models are trained again."""

import numpy as np


def random_subsets(size: int, count: int, fraction: float = 0.5, seed: int = 0) -> np.ndarray:
    """Draw subsets, each without replacement and independent of the others.

    Args:
        size: N samples.
        count: S subsets.
        fraction: of the samples in each, in (0, 1).
        seed: of the draw. A subset depends on it and on its own number alone.

    Returns:
        bool `[S, N]`: whether a subset has a sample.
    """
    chosen = np.zeros((count, size), bool)
    kept = max(1, min(size - 1, round(fraction * size)))
    for row in range(count):
        stream = np.random.default_rng([seed, row])
        chosen[row, stream.permutation(size)[:kept]] = True
    return chosen
