"""Can a derivative be believed? What it foretold of windows that were replayed without samples.

Training is not smooth everywhere, and where it is not a derivative foretells nothing, without
showing it. So each window is replayed without some random sets of samples, and the change of every
query's measurement is held against the one foretold.
"""

from dataclasses import dataclass

import numpy as np

from retrac.correlation import spearman
from retrac.interval import Interval, interval_over

SHARE = 0.1
"""Of the samples in each random set."""
BELIEVED = 0.5
"""Rank correlation above which its interval must lie, for answers to be believed."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Changes of Q queries' measurements, foretold and replayed.

    Attributes:
        foretold: `[Q, S]`, without each of S random sets of samples.
        replayed: `[Q, S]`, what these changes were.
        first_foretold: `[Q]`, without each query's own first ten.
        first_replayed: `[Q]`.
    """

    foretold: np.ndarray
    replayed: np.ndarray
    first_foretold: np.ndarray
    first_replayed: np.ndarray

    @property
    def correlation(self) -> Interval:
        """Mean over queries of the rank correlation over random sets; its interval is over sets."""

        def mean(sets: np.ndarray) -> float:
            return float(spearman(self.foretold[:, sets], self.replayed[:, sets]).mean())

        return interval_over(mean, self.foretold.shape[1])

    @property
    def slope(self) -> Interval:
        """Replayed over foretold by least squares through 0, over all queries and random sets."""

        def slope(sets: np.ndarray) -> float:
            foretold, replayed = self.foretold[:, sets], self.replayed[:, sets]
            return float((foretold * replayed).sum() / max((foretold**2).sum(), 1e-300))

        return interval_over(slope, self.foretold.shape[1])

    @property
    def believed(self) -> bool:
        """Whether the correlation is surely above `BELIEVED`."""
        return self.correlation.low > BELIEVED


def random_sets(samples: int, count: int, share: float = SHARE) -> list[np.ndarray]:
    """Indices of the samples in each of some random sets, rising; always the same ones."""
    size = max(1, round(share * samples))
    return [
        np.sort(np.random.default_rng([0, number]).choice(samples, size, replace=False))
        for number in range(count)
    ]
