"""The linear datamodelling score: do scores foretell what models lose that were trained on parts?

A subset's prediction for a query is the sum of the scores of its samples; the measured value is the
loss of a model trained on that subset alone, turned in sign. Their Spearman correlation over
subsets is the score of a query (Park et al. 2023, "TRAK: Attributing Model Behavior at Scale",
definition 2.3), and its mean over queries that of a method.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from retrac.correlation import spearman
from retrac.interval import Interval, interval_over


@dataclass(frozen=True)
class Ceiling:
    """How far retrained models agree, and so how high a score could be.

    Attributes:
        between_seeds: mean Spearman correlation over subsets between the losses of models that
            differ in their seed alone; what one set of retrained models foretells of another.
        of_the_mean: what the true expected losses would score against the mean over the seeds,
            √(R r / (1 + (R - 1) r)) with r the former and R seeds (Spearman 1910, Brown 1910; exact
            for linear correlations).
    """

    between_seeds: Interval
    of_the_mean: float


@dataclass
class Lds:
    """Collects methods' scores, and correlates them with what was measured.

    Args:
        subsets: bool `[S, N]`, who is in which subset.
        losses: `[S, R, Q]`, of the models retrained on each subset with each of R seeds.
    """

    subsets: np.ndarray
    losses: np.ndarray
    _scores: dict[str, np.ndarray] = field(default_factory=dict)

    def update(self, method: str, scores: np.ndarray) -> None:
        """Take a method's scores `[Q, N]`; positive: the sample lowers the query's loss."""
        if scores.shape != (self.losses.shape[2], self.subsets.shape[1]):
            raise ValueError(
                f"scores are {scores.shape}, not {(self.losses.shape[2], self.subsets.shape[1])}"
            )
        self._scores[method] = np.asarray(scores, float)

    def compute(self, among: np.ndarray | None = None) -> dict[str, Interval]:
        """The score of each method: its mean over queries, with intervals over subsets.

        Args:
            among: rows of the queries; all by default.
        """
        return {method: self._over(partial(self._score, method, among)) for method in self._scores}

    def difference(self, one: str, other: str) -> Interval:
        """By how much one method's score is above another's, with an interval over subsets."""
        return self._over(
            lambda rows: self._score(one, None, rows) - self._score(other, None, rows)
        )

    def by_query(self, method: str) -> np.ndarray:
        """The score of each query, `[Q]`."""
        measured = -self.losses.mean(1)
        return spearman(self.predictions(method).T, measured.T)

    def predictions(self, method: str) -> np.ndarray:
        """Sums of scores over each subset, `[S, Q]`."""
        return self.subsets.astype(float) @ self._scores[method].T

    def ceiling(self) -> Ceiling | None:
        """None with a single seed."""
        seeds = self.losses.shape[1]
        if seeds < 2:
            return None
        pairs = [(one, two) for one in range(seeds) for two in range(one)]

        def agreement(rows: np.ndarray) -> float:
            found = [
                spearman(self.losses[rows, one].T, self.losses[rows, two].T).mean()
                for one, two in pairs
            ]
            return float(np.mean(found))

        between = self._over(agreement)
        reliable = max(0.0, between.value)
        of_the_mean = seeds * reliable / (1 + (seeds - 1) * reliable)
        return Ceiling(between, float(np.sqrt(of_the_mean)))

    def to_json(self, found: Mapping[str, Interval], ceiling: Ceiling | None) -> dict[str, Any]:
        """Results as JSON values."""
        return {
            "subsets": len(self.subsets),
            "seeds": self.losses.shape[1],
            "queries": self.losses.shape[2],
            "lds": {method: asdict(interval) for method, interval in found.items()},
            "by query": {method: self.by_query(method).tolist() for method in found},
            "ceiling": ceiling and asdict(ceiling),
        }

    def _over(self, statistic: Callable[[np.ndarray], float]) -> Interval:
        return interval_over(statistic, len(self.subsets))

    def _score(self, method: str, among: np.ndarray | None, rows: np.ndarray) -> float:
        asked = slice(None) if among is None else among
        sides = self.predictions(method)[:, asked], -self.losses.mean(1)[:, asked]
        return float(spearman(*(side[rows].T for side in sides)).mean())
