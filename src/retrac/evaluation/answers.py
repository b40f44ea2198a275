"""What metrics look at: one query, and what a method says of every sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retrac.attribution.asked import Queries


@dataclass(frozen=True, eq=False)
class Answer:
    """A method's answer to one query.

    Attributes:
        scores: `[N]`, of all samples; larger for those that taught the model the query.
        label: of the query; empty without one.
        own: the query's index in the training set; None for other images.
    """

    scores: np.ndarray
    label: str = ""
    own: int | None = None

    def first(self, k: int) -> np.ndarray:
        """The k samples with the largest scores, best first; of equal ones the earlier."""
        return np.argsort(-self.scores, kind="stable")[:k]

    def first_others(self, k: int) -> np.ndarray:
        """Likewise, without the query itself."""
        found = self.first(k + 1)
        return found[found != self.own][:k] if self.own is not None else found[:k]


def answers(scores: np.ndarray, queries: Queries, ids: tuple[str, ...]) -> Iterator[Answer]:
    """A method's answers to all queries.

    Args:
        scores: `[Q, N]`.
        queries: Q of them.
        ids: of the N samples; a query with one of them is that sample.
    """
    places = {name: place for place, name in enumerate(ids)}
    for row, name, label in zip(scores, queries.ids, queries.labels, strict=True):
        yield Answer(row, label, places.get(name))
