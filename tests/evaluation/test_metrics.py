"""Metrics on constructed answers, where the right number is known."""

import numpy as np
import pytest

from retrac.attribution.asked import Queries
from retrac.errors import RetracError
from retrac.evaluation.answers import Answer, answers
from retrac.evaluation.baselines import pixel_products, pixel_scores, random_scores, same_scores
from retrac.evaluation.bias import Bias, usual_norms
from retrac.evaluation.images import pixel_distance, structural_similarity
from retrac.evaluation.outliers import Outliers
from retrac.evaluation.targeting import Targeting
from retrac.evaluation.tracing import Tracing
from retrac.interval import Interval

LABELS = ["a"] * 30 + ["b"] * 70
KIN = np.array([float(label == "a") for label in LABELS])
LUCK = np.random.default_rng(0).standard_normal((200, 100))


def tracing(scores: np.ndarray, own: int | None = None) -> dict[str, float]:
    metric = Tracing(LABELS, k=10)
    for row in np.atleast_2d(scores):
        metric.update(Answer(row, "a", own))
    return {name: interval.value for name, interval in metric.compute().items()}


def test_perfect_tracing_is_one_and_reversed_is_zero() -> None:
    perfect, reverse = tracing(KIN + 0.01 * LUCK[0]), tracing(-KIN + 0.01 * LUCK[0])
    assert perfect == {"own group in the first 10": 1, "ROC AUC": 1, "average precision": 1}
    assert reverse["own group in the first 10"] == reverse["ROC AUC"] == 0
    assert reverse["average precision"] < 0.3


def test_random_tracing_is_chance() -> None:
    found = tracing(LUCK)
    assert found["own group in the first 10"] == pytest.approx(0.3, abs=0.03)
    assert found["ROC AUC"] == pytest.approx(0.5, abs=0.02)
    assert found["average precision"] == pytest.approx(0.33, abs=0.03)


def test_a_query_is_not_counted_among_its_own_group() -> None:
    scores = 1 - KIN
    scores[3] = 2.0  # the query itself comes first, its group last
    found = tracing(scores, own=3)
    assert found["itself first"] == found["rank of itself"] == 1
    assert found["own group in the first 10"] == found["ROC AUC"] == 0


def test_ties_share_their_ranks() -> None:
    assert tracing(np.zeros(100), own=5)["rank of itself"] == 50.5


def test_each_group_is_told_apart() -> None:
    metric = Tracing(LABELS, k=10)
    for _ in range(4):  # answers that are right about one group only
        metric.update(Answer(KIN, "a"))
        metric.update(Answer(KIN, "b"))
    assert metric.by_group() == {
        "queries of a": Interval(1, 1, 1),
        "queries of b": Interval(0, 0, 0),
    }


def test_many_groups_are_not() -> None:
    metric = Tracing([str(place % 13) for place in range(100)])
    for label in range(13):
        metric.update(Answer(LUCK[0], str(label)))
    with pytest.raises(RetracError, match="1 to 12 of them among the queries, not 13"):
        metric.by_group()


def test_tracing_without_groups_says_so() -> None:
    with pytest.raises(RetracError, match="no two groups"):
        Tracing(["a"] * 5)
    metric = Tracing(LABELS)
    metric.update(Answer(LUCK[0]))
    with pytest.raises(RetracError, match="queries with labels"):
        metric.compute()


def targeting(scores: np.ndarray, labels: list[str] | None = LABELS) -> dict[str, float]:
    metric = Targeting(labels, (10,))
    for row in scores:
        metric.update(Answer(row, "a" if labels else ""))
    return {name: interval.value for name, interval in metric.compute().items()}


def test_the_same_list_for_every_query_is_not_targeted() -> None:
    found = targeting(np.repeat(LUCK[:1], 8, 0))
    assert found["unique, first 10"] == 10 / 80
    assert found["overlap of two, first 10"] == 1
    assert found["generally influential, first 10"] == 10


def test_lists_with_nothing_in_common_are() -> None:
    found = targeting(np.repeat(np.eye(8), 10, 1))
    assert found["unique, first 10"] == 1
    assert found["overlap of two, first 10"] == found["generally influential, first 10"] == 0


def test_some_lists_with_something_in_common() -> None:
    scores = np.zeros((4, 100))
    for row, first in zip(scores, (0, 5, 50, 80), strict=True):
        row[first : first + 10] = 1
    found = targeting(scores)
    assert found["unique, first 10"] == 35 / 40
    assert found["overlap of two, first 10"] == pytest.approx(0.5 / 6)


def test_intervals_of_targeting_are_rather_too_wide_than_too_narrow() -> None:
    # A jackknife's variances are too large, if anything (Efron and Stein 1981).
    stream = np.random.default_rng(0)
    found: dict[str, list[Interval]] = {"unique, first 10": [], "overlap of two, first 10": []}
    for _ in range(200):
        metric = Targeting(None, (10,))
        for row in stream.standard_normal((12, 100)):
            metric.update(Answer(row))
        for name, kept in found.items():
            kept.append(metric.compute()[name])
    for kept in found.values():
        spread = np.std([interval.value for interval in kept])
        told = np.mean([interval.high - interval.value for interval in kept]) / 1.796
        assert spread < told < 2 * spread


def test_random_lists_are_unique_but_of_any_label() -> None:
    found = targeting(LUCK[:8])
    assert found["unique, first 10"] > 0.5
    assert found["same label, first 10"] == pytest.approx(0.3, abs=0.15)
    assert "same label, first 10" not in targeting(LUCK[:8], None)


def test_targeting_needs_two_queries() -> None:
    with pytest.raises(RetracError, match="at least two"):
        targeting(LUCK[:1])


def test_scores_that_follow_norms_are_seen() -> None:
    norms = np.exp(LUCK[0])
    follows, free = Bias(norms, norms), Bias(norms, norms)
    for row in LUCK[1:40]:
        follows.update(Answer(norms * np.abs(row)))
        free.update(Answer(row))
    loud, quiet = follows.compute(), free.compute()
    assert loud["correlation with the norm"].value > 0.9
    assert abs(quiet["correlation with the norm"].value) < 0.3
    assert loud["loudest tenth in the first 10"].value > 0.5
    assert quiet["loudest tenth in the first 10"].value == pytest.approx(0.1, abs=0.05)


def test_samples_without_a_norm_do_not_count() -> None:
    norms = np.exp(LUCK[0])
    one, other = np.r_[norms, np.full(9, np.nan)], norms
    found, expected = Bias(one, one), Bias(other, other)
    for row in LUCK[1:40]:
        found.update(Answer(np.r_[norms * np.abs(row), np.zeros(9)]))
        expected.update(Answer(norms * np.abs(row)))
    assert found.compute() == expected.compute()


@pytest.mark.parametrize("samples", [119, 256, 1000])
def test_a_tenth_of_the_samples_is_the_loudest_tenth(samples: int) -> None:
    norms = usual_norms(np.arange(samples), np.exp(np.arange(samples) / samples))
    metric = Bias(norms, norms, samples // 2)
    for row in np.random.default_rng(0).standard_normal((300, samples)):
        metric.update(Answer(row))
    found = metric.compute()[f"loudest tenth in the first {samples // 2}"]
    assert found.value == pytest.approx(0.1, abs=0.01)


def test_a_handful_of_samples_shows_no_bias() -> None:
    with pytest.raises(RetracError, match="fewer than 20"):
        Bias(np.arange(5.0), np.arange(5.0))


def test_scores_that_are_all_the_same_have_no_correlation() -> None:
    metric = Bias(np.arange(50.0), np.arange(50.0))
    metric.update(Answer(np.ones(50)))
    assert np.isnan(metric.compute()["correlation with the norm"].value)


def test_the_usual_norm_is_that_of_neighbours_in_time() -> None:
    timesteps = np.arange(1000)
    norms = np.exp(-timesteps / 300) * np.exp(0.5 * np.random.default_rng(0).standard_normal(1000))
    usual = usual_norms(timesteps, norms)
    assert len(np.unique(usual)) == 20
    np.testing.assert_allclose(usual, np.exp(-timesteps / 300), rtol=0.6)


def test_bias_needs_norms_that_differ() -> None:
    with pytest.raises(RetracError, match="all samples have the same"):
        Bias(np.ones(5), np.ones(5))


def test_outliers_found_missed_and_reversed() -> None:
    planted = np.arange(100) < 5
    metric = Outliers(planted)
    metric.update("perfect", planted + 0.1 * LUCK[0] ** 2 / 20)
    metric.update("random", LUCK[1])
    metric.update("reversed", -planted.astype(float))
    found = metric.compute()
    assert found["perfect"]["ROC AUC"].value == found["perfect"]["average precision"].value == 1
    low, high = found["random"]["ROC AUC"].low, found["random"]["ROC AUC"].high
    assert low < 0.5 < high
    assert found["reversed"]["ROC AUC"].value == 0
    assert found["reversed"]["average precision"].value == pytest.approx(0.05)


@pytest.mark.parametrize("planted", [np.zeros(5, bool), np.ones(5, bool)])
def test_without_planted_outliers_there_is_nothing_to_find(planted: np.ndarray) -> None:
    with pytest.raises(RetracError, match="no planted outliers"):
        Outliers(planted)


def test_baselines() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4)).astype(np.uint8)
    near = pixel_scores(images[:2], images)
    assert near.shape == (2, 6) and (near.argmax(1) == [0, 1]).all()
    assert near[0, 0] == 0 and near[0, 1] == pytest.approx(-pixel_distance(images[0], images[1]))
    cosines = pixel_products(images[:2], images)
    assert cosines[0, 0] == pytest.approx(1) and np.abs(cosines).max() <= 1 + 1e-9
    assert (random_scores(2, 5) == random_scores(2, 5)).all()
    assert same_scores(np.arange(3.0), 2).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_answers_know_which_query_is_a_sample() -> None:
    queries = Queries("q", np.zeros((2, 1, 2, 2), np.uint8), ("b", "other"), ("x", ""))
    first, second = answers(np.zeros((2, 3)), queries, ("a", "b", "c"))
    assert (first.own, first.label) == (1, "x")
    assert (second.own, second.label) == (None, "")
    assert first.first(2).tolist() == [0, 1]  # equal ones in their order
    assert first.first_others(2).tolist() == [0, 2]


def test_images_that_are_equal_and_images_that_are_not() -> None:
    stream = np.random.default_rng(0)
    one = stream.integers(0, 256, (3, 16, 16)).astype(np.uint8)
    assert structural_similarity(one, one) == pytest.approx(1)
    assert pixel_distance(one, one) == 0
    other = stream.integers(0, 256, (3, 16, 16)).astype(np.uint8)
    slightly = np.clip(one.astype(int) + stream.integers(-9, 10, one.shape), 0, 255).astype(
        np.uint8
    )
    unlike, alike = (structural_similarity(one, image) for image in (other, slightly))
    assert unlike < 0.2 < 0.9 < alike
    black, white = np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 255, np.uint8)
    assert pixel_distance(black, white) == 1
    assert structural_similarity(black, white) == pytest.approx(1e-4, rel=0.01)
