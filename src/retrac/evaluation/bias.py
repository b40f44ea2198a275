"""The dominating norm effect, measured (Xie et al. 2024, section 4)."""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import spearmanr

from retrac.errors import RetracError
from retrac.evaluation.answers import Answer
from retrac.interval import Interval, interval_over, mean_interval

LARGEST = 0.1
"""Of the timesteps, those with the largest gradient norms."""
PARTS = 20
"""Parts of the samples, by timestep, in which usual norms are told."""


@dataclass
class Bias:
    """How far scores follow gradient norms instead of content.

    Args:
        norms: `[N]`, of each sample's gradient where it was trained, a mean over checkpoints;
            samples without a norm do not count.
        usual: `[N]`, the norms that are usual at those timesteps.
        k: length of a list.

    Raises:
        RetracError: all usual norms are the same.
    """

    norms: np.ndarray
    usual: np.ndarray
    k: int = 10
    _sizes: list[np.ndarray] = field(default_factory=list)
    _loud: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._there = np.flatnonzero(np.isfinite(self.usual))
        usual = self.usual[self._there]
        if len(usual) < PARTS or np.ptp(usual) == 0:
            raise RetracError(
                "the bias of norms cannot be seen: all samples have the same, or there are fewer "
                f"than {PARTS}"
            )
        # Usual norms come in steps: of those that are equal, chance decides.
        tied = np.random.default_rng(0).permutation(len(usual))
        loudest = np.lexsort((tied, -usual))[: math.ceil(LARGEST * len(usual))]
        self._largest = np.isin(np.arange(len(self.usual)), self._there[loudest])

    def update(self, answer: Answer) -> None:
        """Take one answer."""
        self._sizes.append(np.abs(answer.scores))
        self._loud.append(float(self._largest[answer.first_others(self.k)].mean()))

    def compute(self) -> dict[str, Interval]:
        """Spearman correlations of the mean size of a sample's scores with its norm and with the
        one that is usual at its timestep, with intervals over samples; and the share of lists that
        was trained where norms are largest, which is `LARGEST` by chance."""
        there = self._there
        size = np.mean(self._sizes, 0)[there]
        return {
            "correlation with the norm": _correlation(size, self.norms[there]),
            "correlation with the usual norm": _correlation(size, self.usual[there]),
            f"loudest tenth in the first {self.k}": mean_interval(np.array(self._loud)),
        }


def usual_norms(timesteps: np.ndarray, norms: np.ndarray, parts: int = PARTS) -> np.ndarray:
    """What norm is usual at a timestep: the median of those in the same part of [0, T).

    Args:
        timesteps: `[N]`.
        norms: `[N]`, at these.
        parts: of equally many samples.

    Returns:
        `[N]`.
    """
    order = np.argsort(timesteps, kind="stable")
    usual = np.empty(len(norms))
    for part in np.array_split(order, min(parts, len(order))):
        usual[part] = np.median(norms[part])
    return usual


def loudest_timestep(timesteps: np.ndarray, norms: np.ndarray, parts: int = PARTS) -> int:
    """The middle of the timesteps at which the usual norm is largest."""
    usual = usual_norms(timesteps, norms, parts)
    return int(np.median(timesteps[usual == usual.max()]))


def _correlation(one: np.ndarray, two: np.ndarray) -> Interval:
    def over(rows: np.ndarray) -> float:
        if np.ptp(one[rows]) == 0 or np.ptp(two[rows]) == 0:
            return math.nan
        return float(spearmanr(one[rows], two[rows]).statistic)

    return interval_over(over, len(one))
