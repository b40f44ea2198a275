"""Are answers about the query, or the same whatever is asked?

The published measure is the unique fraction: distinct samples among all queries' first n. It can be
gamed, since lists drawn at random are nearly all distinct, and so it always comes with the share of
the lists that has the query's label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrac.errors import RetracError
from retrac.evaluation.answers import Answer
from retrac.interval import Interval, jackknife, mean_interval

MANY = 0.25
"""Of the queries: a sample that is on the lists of so many is generally influential."""


@dataclass
class Targeting:
    """How much the lists of different queries have in common.

    Args:
        labels: of the samples, or None.
        lengths: n, of lists.
    """

    labels: Sequence[str] | None
    lengths: Sequence[int] = (10, 50, 100)
    _size: int = 0
    _lists: list[np.ndarray] = field(default_factory=list)
    _alike: dict[int, list[float]] = field(default_factory=dict)

    def update(self, answer: Answer) -> None:
        """Take one answer."""
        longest = max(self.lengths)
        self._size = len(answer.scores)
        self._lists.append(answer.first(longest))
        if self.labels is None or not answer.label:
            return
        alike = np.array(self.labels)[answer.first_others(longest)] == answer.label
        for length in self.lengths:
            self._alike.setdefault(length, []).append(float(alike[:length].mean()))

    def compute(self) -> dict[str, Interval]:
        """By length n: unique fraction, mean overlap of two lists, generally influential samples,
        and the share that has the query's label, with intervals over queries, rather too
        wide than too narrow. (A count of samples above a threshold has none.)

        Raises:
            RetracError: fewer than two queries.
        """
        count = len(self._lists)
        if count < 2:
            raise RetracError("targeting compares the lists of queries: ask for at least two")
        found: dict[str, Interval] = {}
        for length in self.lengths:
            listed = self._listed(length)
            served = listed.sum(0)
            general = float((served >= max(2, MANY * count)).sum())
            found[f"unique, first {length}"] = _unique(listed)
            found[f"overlap of two, first {length}"] = _overlap(listed)
            found[f"generally influential, first {length}"] = Interval(general)
            if length in self._alike:
                same = mean_interval(np.array(self._alike[length]))
                found[f"same label, first {length}"] = same
        return found

    def _listed(self, length: int) -> np.ndarray:
        """`[Q, N]`, 1 for samples that are on a query's list."""
        listed = np.zeros((len(self._lists), self._size), int)
        for row, found in zip(listed, self._lists, strict=True):
            row[found[:length]] = 1
        return listed


def _unique(listed: np.ndarray) -> Interval:
    """Distinct samples over places on all lists."""
    served, places = listed.sum(0), listed.sum()
    without = ((served - listed) > 0).sum(1) / (places - listed.sum(1))
    return jackknife(float((served > 0).sum() / places), without)


def _overlap(listed: np.ndarray) -> Interval:
    """The share of a list that is on another, over all pairs."""
    count = len(listed)
    shared = (listed @ listed.T) / listed.sum(1)
    np.fill_diagonal(shared, 0)
    whole, own = shared.sum(), shared.sum(0) + shared.sum(1)
    value = float(whole / (count * (count - 1)))
    return jackknife(value, (whole - own) / max(1, (count - 1) * (count - 2)))
