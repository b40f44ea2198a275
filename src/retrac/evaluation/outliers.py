"""Does self-influence find what does not belong?"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from retrac.errors import RetracError
from retrac.interval import Interval, interval_over


@dataclass
class Outliers:
    """Ranking of planted outliers.

    Args:
        planted: bool `[N]`, which samples are.

    Raises:
        RetracError: none is, or all are.
    """

    planted: np.ndarray
    _values: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.planted.any() or self.planted.all():
            raise RetracError(
                "there are no planted outliers in the training set, or nothing else: some of its "
                "samples must be outliers, and known to be"
            )

    def update(self, method: str, values: np.ndarray) -> None:
        """Take a method's values `[N]`; larger for outliers."""
        self._values[method] = np.asarray(values, float)

    def compute(self) -> dict[str, dict[str, Interval]]:
        """By method: ROC AUC and average precision, with intervals over the samples."""
        measures = {"ROC AUC": roc_auc_score, "average precision": average_precision_score}
        return {
            method: {
                name: interval_over(partial(self._over, measure, values), len(values))
                for name, measure in measures.items()
            }
            for method, values in self._values.items()
        }

    def _over(self, measure: Callable[..., float], values: np.ndarray, rows: np.ndarray) -> float:
        planted = self.planted[rows]
        if not planted.any() or planted.all():
            return math.nan
        return float(measure(planted, values[rows]))
