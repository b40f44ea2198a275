"""How sure scores are: standard errors, certain members of a list, and what a repeat would say.

A score adds up what checkpoints contribute, each with events and draws of its own: they are
independent groups, and from how much they differ follows how far their sum may be off. Groups count
by their size: what checkpoint g contributes to a query is c_g(i) = m_g u_g(i), with m_g its root
mean square over all samples, so that checkpoints with large gradients are not taken for
disagreement. The variance of Σ_g c_g(i) is then Σ_g m_g² times that of u(i).

Few groups give a poor variance of one sample, but there are many samples: variances are drawn
towards what is usual for the query, as far as they are alike (Smyth 2004, "Linear models and
empirical Bayes methods for assessing differential expression in microarray experiments", eq. 3-10).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import rankdata
from scipy.stats import t as student

from retrac.errors import RetracError

MANY = 1e6
"""Degrees of freedom that are as good as infinitely many."""
NO_ERROR = (
    "a single checkpoint shows no error, unless several groups of its events or draws are told "
    "apart: use more --checkpoints, or --replay 2 or more without an index"
)
REPEATS = 100
"""Draws from which certainty and repeatability are read."""
CERTAIN = 0.95
"""Probability of belonging to a list that is called certain."""


@dataclass(frozen=True, eq=False)
class First:
    """What can be said of each query's k highest scores.

    Attributes:
        membership: `[Q, N]`, probability of each sample to be among the true first k.
        certain: `[Q]`, how many of the k belong there almost surely.
        repeatability: `[Q]`, share of the k that a repeat of the same effort would give again.
    """

    membership: np.ndarray
    certain: np.ndarray
    repeatability: np.ndarray


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Of the scores of one method.

    Attributes:
        scores: `[Q, N]`.
        errors: `[Q, N]`, standard errors.
        freedom: `[Q]`, degrees of freedom of their t distribution.
        halves: `[Q]`, rank correlation between the sums over every second group, stepped up to the
            whole (Spearman 1910, Brown 1910).
        luck: `[G, Q, N]`, how far each group's u is from their mean, blown up to the variance that
            a new group's would have.
        sizes: `[G, Q]`, m_g.
    """

    scores: np.ndarray
    errors: np.ndarray
    freedom: np.ndarray
    halves: np.ndarray
    luck: np.ndarray
    sizes: np.ndarray

    @staticmethod
    @np.errstate(invalid="ignore")  # of infinite scores nothing is known
    def of(groups: np.ndarray) -> "Uncertainty":
        """From independent groups' contributions `[G, Q, N]`.

        Raises:
            RetracError: a single group, which shows no differences.
        """
        count = len(groups)
        if count < 2:
            raise RetracError(NO_ERROR)
        groups = np.asarray(groups, float)
        sizes = np.sqrt(np.square(groups).mean(2))
        unit = groups / np.where(sizes > 0, sizes, 1)[..., None]
        luck = (unit - unit.mean(0)) * np.sqrt(count / (count - 1))
        moderated = [moderate(each, count - 1) for each in np.square(luck).mean(0)]
        variances = np.stack([variance for variance, _ in moderated])
        variances[~groups.any(0)] = 0  # of a sample that nothing showed, whose score is surely 0
        return Uncertainty(
            groups.sum(0),
            np.sqrt(variances * np.square(sizes).sum(0)[:, None]),
            np.array([freedom for _, freedom in moderated]),
            _agreement_of_halves(groups),
            luck.astype(np.float32),
            sizes,
        )

    @property
    def groups(self) -> int:
        """G."""
        return len(self.luck)

    def intervals(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Between what the scores lie with this confidence, `[Q, N]` each."""
        reach = student.ppf((1 + level) / 2, self.freedom)[:, None] * self.errors
        return self.scores - reach, self.scores + reach

    def first(self, k: int, seed: int = 0) -> First:
        """How sure the first k of each query's list are."""
        found = [self._first_of(query, k, seed) for query in range(len(self.scores))]
        membership, certain, repeatability = zip(*found, strict=True)
        return First(np.stack(membership), np.array(certain), np.array(repeatability))

    def _first_of(self, query: int, k: int, seed: int) -> tuple[np.ndarray, int, float]:
        first = in_first(self.scores[query], k)
        belongs, stays = np.zeros(len(first)), 0
        stream = np.random.default_rng([seed, query, 1])
        for truth, again in self._repeats(query, seed):
            mixed = stream.permutation(len(first))  # chance decides between equal scores
            belongs[mixed] += in_first(truth[mixed], k)
            stays += (in_first(again[mixed], k) & first[mixed]).sum()
        chance = belongs / REPEATS
        return chance, int((first & (chance >= CERTAIN)).sum()), stays / (REPEATS * first.sum())

    def _repeats(self, query: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What the true scores could be, and what a repeat could then give, `[N]` each.

        The first of a list owe their place to luck, too: scores are first drawn towards their mean,
        by as much as errors explain their differences. Luck has heavy tails: a single event can
        make a score large. A sample whose groups differ much has so much of it behind it, but one
        whose groups happen to agree is no surer than most. In a repeat, luck may fall on any.
        """
        scores, luck, sizes = self.scores[query], self.luck[:, query], self.sizes[:, query]
        with np.errstate(invalid="ignore"):  # of infinite scores nothing is known
            own = np.square(luck).mean(0) * np.square(sizes).sum()
            usual = own.mean()
            errors = np.maximum(own, usual)
            real = max(0.0, scores.var() - usual)
            kept = np.divide(real, real + errors, out=np.ones_like(errors), where=errors > 0)
            centre = scores.mean() + kept * (scores - scores.mean())
        stream, pool = np.random.default_rng([seed, query]), luck.ravel()
        for _ in range(REPEATS):
            truth = centre + np.sqrt(kept * errors) * stream.standard_normal(len(scores))
            drawn = pool[stream.integers(len(pool), size=luck.shape, dtype=np.int32)]
            yield truth, truth + sizes @ drawn


def moderate(variances: np.ndarray, freedom: float) -> tuple[np.ndarray, float]:
    """Draw variances towards a common one, as far as they are alike.

    Args:
        variances: `[N]`, of independent normal samples.
        freedom: degrees of freedom d of each.

    Returns:
        The variances `(d₀ s₀² + d s²) / (d₀ + d)`, and d₀ + d. With d₀ = 0 where nothing is alike;
        at most `MANY`.
    """
    positive = variances[variances > 0]
    if len(positive) < 2:
        return variances, freedom
    kept = np.maximum(variances, 1e-6 * np.median(positive))
    logs = np.log(kept) - digamma(freedom / 2) + np.log(freedom / 2)
    left = logs.var(ddof=1) - polygamma(1, freedom / 2)
    prior = MANY if left <= polygamma(1, MANY / 2) else 2 * _inverse_trigamma(left)
    usual = np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))
    together = prior + freedom
    return (prior * usual + freedom * kept) / together, min(together, MANY)


def _inverse_trigamma(value: float) -> float:
    return float(brentq(lambda x: polygamma(1, x) - value, 1e-6, MANY))


def in_first(scores: np.ndarray, k: int) -> np.ndarray:
    """Whether each is among the k largest of its row."""
    if k >= scores.shape[-1]:
        return np.ones(scores.shape, bool)
    found = np.zeros(scores.shape, bool)
    np.put_along_axis(found, np.argpartition(-scores, k - 1, axis=-1)[..., :k], True, -1)
    return found


def _agreement_of_halves(groups: np.ndarray) -> np.ndarray:
    one, two = (rankdata(groups[start::2].sum(0), axis=1) for start in (0, 1))
    one, two = (rank - rank.mean(1, keepdims=True) for rank in (one, two))
    scale = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    half = np.divide((one * two).sum(1), scale, out=np.zeros(len(one)), where=scale > 0)
    return np.where(half > 0, 2 * half / (1 + np.abs(half)), half)
