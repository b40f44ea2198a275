"""Do queries find their own group? The CIFAR-MNIST test of Xie et al. 2024, section 5."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from retrac.errors import RetracError
from retrac.evaluation.answers import Answer
from retrac.interval import Interval, mean_interval

SHOWN = 12
"""Groups that are shown one by one, at the most."""


@dataclass
class Tracing:
    """Ranks of a query's own group among all samples, itself left out, and the query's own rank.

    Args:
        labels: of the samples: the groups.
        k: length of a list.

    Raises:
        RetracError: all samples are of one group.
    """

    labels: Sequence[str]
    k: int = 10
    _found: dict[str, list[float]] = field(default_factory=dict)
    _shares: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups = np.array(self.labels)
        if len(set(self.labels)) < 2:
            raise RetracError(
                "tracing asks whether queries find their own group, and the training set has no "
                "two groups: it needs labels"
            )

    def update(self, answer: Answer) -> None:
        """Take one answer; queries without a label tell nothing of groups."""
        if answer.own is not None:
            above = answer.scores > answer.scores[answer.own]
            tied = answer.scores == answer.scores[answer.own]
            rank = above.sum() + (tied.sum() + 1) / 2
            self._keep("rank of itself", float(rank))
            self._keep("itself first", float(rank == 1))
        kin = self._groups == answer.label
        others = np.arange(len(kin)) != answer.own
        if not answer.label or not kin[others].any() or kin[others].all():
            return
        share = float(kin[answer.first_others(self.k)].mean())
        self._shares.setdefault(answer.label, []).append(share)
        self._keep(f"own group in the first {self.k}", share)
        self._keep("ROC AUC", float(roc_auc_score(kin[others], answer.scores[others])))
        found = average_precision_score(kin[others], answer.scores[others])
        self._keep("average precision", float(found))

    def compute(self) -> dict[str, Interval]:
        """Means over queries, with intervals over queries.

        Raises:
            RetracError: no query was of a group, or of the training set.
        """
        if not self._found:
            raise RetracError(
                "tracing needs queries with labels, or from the training set: ask for train:N"
            )
        return {name: mean_interval(np.array(values)) for name, values in self._found.items()}

    def by_group(self) -> dict[str, Interval]:
        """The share of the first k that is of the query's own group, by group.

        Raises:
            RetracError: no query was of a group, or they are of more than `SHOWN`.
        """
        if not 0 < len(self._shares) <= SHOWN:
            raise RetracError(
                f"groups are shown one by one where there are 1 to {SHOWN} of them among the "
                f"queries, not {len(self._shares)}"
            )
        return {
            f"queries of {group}": mean_interval(np.array(shares))
            for group, shares in sorted(self._shares.items())
        }

    def _keep(self, name: str, value: float) -> None:
        self._found.setdefault(name, []).append(value)
