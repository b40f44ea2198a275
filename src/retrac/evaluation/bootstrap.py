"""How sure a number is: intervals from drawing the things it is a mean over again."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 0.9


@dataclass(frozen=True)
class Interval:
    """A number, and between what it lies with the confidence `level`."""

    value: float
    low: float
    high: float
    level: float = LEVEL

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}, {self.high:.3f})"


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """A percentile interval over `count` things.

    Args:
        statistic: indices `[D, count]` of the things drawn, in D draws at once -> `[D]` values.
        count: of the things; below 2 there is no interval, and it is NaN.
        seed: of the draws.
        draws: how many.
    """
    value = float(statistic(np.arange(count)[None])[0])
    if count < 2:
        return Interval(value, float("nan"), float("nan"))
    indices = np.random.default_rng(seed).integers(0, count, (draws, count))
    found = statistic(indices)
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def mean_interval(values: np.ndarray, seed: int = 0) -> Interval:
    """Of the mean of independent values; those that are NaN do not count."""
    kept = np.asarray(values, float)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return Interval(float("nan"), float("nan"), float("nan"))
    return bootstrap(lambda indices: kept[indices].mean(1), len(kept), seed)
