"""Are answers about the query, or the same whatever is asked?

The published measure is the unique fraction: distinct samples among all queries' first n. It can be
gamed, since lists drawn at random are nearly all distinct, and so it always comes with the share of
the lists that has the query's label.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from retrac.errors import RetracError
from retrac.evaluation.answers import Answer
from retrac.evaluation.bootstrap import Interval, mean_interval

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
    _lists: list[np.ndarray] = field(default_factory=list)
    _alike: dict[int, list[float]] = field(default_factory=dict)

    def update(self, answer: Answer) -> None:
        """Take one answer."""
        longest = max(self.lengths)
        self._lists.append(answer.first(longest))
        if self.labels is None or not answer.label:
            return
        alike = np.array(self.labels)[answer.first_others(longest)] == answer.label
        for length in self.lengths:
            self._alike.setdefault(length, []).append(float(alike[:length].mean()))

    def compute(self) -> dict[str, Interval]:
        """By length n: unique fraction, mean overlap of two lists, generally influential samples,
        and the share that has the query's label.

        Raises:
            RetracError: fewer than two queries.
        """
        if len(self._lists) < 2:
            raise RetracError("targeting compares the lists of queries: ask for at least two")
        found: dict[str, Interval] = {}
        for length in self.lengths:
            lists = [one[:length] for one in self._lists]
            served = Counter(int(sample) for one in lists for sample in one)
            shared = [len({*one} & {*two}) / len(one) for one, two in combinations(lists, 2)]
            general = sum(count >= max(2, MANY * len(lists)) for count in served.values())
            found[f"unique, first {length}"] = _plain(len(served) / sum(map(len, lists)))
            found[f"overlap of two, first {length}"] = _plain(float(np.mean(shared)))
            found[f"generally influential, first {length}"] = _plain(general)
            if length in self._alike:
                same = mean_interval(np.array(self._alike[length]))
                found[f"same label, first {length}"] = same
        return found


def _plain(value: float) -> Interval:
    return Interval(float(value), float("nan"), float("nan"))
