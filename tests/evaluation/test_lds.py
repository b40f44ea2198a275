"""The linear datamodelling score where it is exactly computable."""

import numpy as np
import pytest

from retrac.correlation import spearman
from retrac.evaluation.lds import Lds
from retrac.evaluation.subsets import random_subsets

SUBSETS = random_subsets(60, 100)
EFFECT = np.random.default_rng(0).standard_normal((8, 60))
"""Of each sample on each query, in a world where effects add up."""


SPREAD = (SUBSETS @ EFFECT.T).std(0)
"""Of each query over subsets: with noise as large, models agree to one half."""


def measured(noise: float | np.ndarray, seeds: int = 2, seed: int = 1) -> np.ndarray:
    luck = np.random.default_rng(seed).standard_normal((100, seeds, 8))
    return -(SUBSETS @ EFFECT.T)[:, None] + noise * luck


def test_subsets_are_halves_that_depend_on_seed_and_number_alone() -> None:
    assert (SUBSETS.sum(1) == 30).all()
    assert (random_subsets(60, 3) == SUBSETS[:3]).all()
    assert (random_subsets(60, 3, seed=1) != SUBSETS[:3]).any()
    assert random_subsets(10, 4, 0.2).sum(1).tolist() == [2] * 4


def test_true_effects_score_one_reversed_ones_minus_one_and_random_ones_nothing() -> None:
    metric = Lds(SUBSETS, measured(0))
    metric.update("true", EFFECT)
    metric.update("reversed", -3 * EFFECT)
    metric.update("random", np.random.default_rng(5).standard_normal((8, 60)))
    found = metric.compute()
    assert found["true"].value == pytest.approx(1)
    assert found["reversed"].value == pytest.approx(-1)
    assert abs(found["random"].value) < 0.15
    assert metric.by_query("true") == pytest.approx(np.ones(8))


def test_the_interval_holds_what_more_subsets_would_show() -> None:
    metric = Lds(SUBSETS, measured(SPREAD, seeds=1))
    metric.update("true", EFFECT)
    found = metric.compute()["true"]
    assert found.low < np.sqrt(0.5) * 0.97 < found.high
    assert metric.ceiling() is None


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    stream = np.random.default_rng(7)
    effect = stream.standard_normal((6, 60))
    told = effect + stream.standard_normal(effect.shape)

    def scored(count: int, seed: int) -> Lds:
        subsets = random_subsets(60, count, seed=seed)
        luck = np.random.default_rng(seed).standard_normal((count, 2, 6))
        metric = Lds(subsets, -(subsets @ effect.T)[:, None] + 2 * luck)
        metric.update("told", told)
        return metric

    truth = scored(4000, 999).compute()["told"].value
    found = [scored(24, seed).compute()["told"] for seed in range(150)]
    held = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.5 < truth < 0.8 and held == pytest.approx(0.9, abs=0.05)


def test_a_difference_is_surer_than_the_scores_are() -> None:
    metric = Lds(SUBSETS, measured(SPREAD))
    metric.update("true", EFFECT)
    stream = np.random.default_rng(3)
    metric.update("nearly", EFFECT + 0.5 * stream.standard_normal(EFFECT.shape))
    found, gap = metric.compute(), metric.difference("true", "nearly")
    assert gap.value == pytest.approx(found["true"].value - found["nearly"].value)
    alone = np.hypot(*(each.high - each.low for each in found.values()))
    assert gap.low > 0 and gap.high - gap.low < 0.8 * alone
    some = np.arange(3)
    assert metric.compute(some)["true"].value == pytest.approx(metric.by_query("true")[:3].mean())


def test_the_ceiling_is_what_perfect_scores_reach() -> None:
    metric = Lds(SUBSETS, measured(SPREAD, seeds=3))
    metric.update("true", EFFECT)
    ceiling = metric.ceiling()
    assert ceiling is not None
    assert ceiling.between_seeds.value == pytest.approx(0.5, abs=0.08)
    assert metric.compute()["true"].value == pytest.approx(ceiling.of_the_mean, abs=0.05)


def test_rank_correlation_is_scipy_s() -> None:
    from scipy.stats import spearmanr

    one, two = np.random.default_rng(0).integers(0, 9, (2, 5, 40))
    expected = [spearmanr(a, b).statistic for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(spearman(one, two), expected)
    assert spearman(np.ones((1, 4)), np.arange(4.0)[None]) == [0]


def test_scores_of_other_queries_or_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(8, 59\), not \(8, 60\)"):
        Lds(SUBSETS, measured(0)).update("cut", EFFECT[:, 1:])
