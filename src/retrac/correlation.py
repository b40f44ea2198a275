"""Rank correlation of many rows at a time."""

import numpy as np
from scipy.stats import rankdata


def spearman(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis; 0 where one side does not vary."""
    ranks = [rankdata(side, axis=-1) for side in (one, two)]
    first, second = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    product = (first * second).sum(-1)
    scale = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    return np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
