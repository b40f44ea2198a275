"""How sure numbers are."""

import numpy as np
import pytest

from retrac.interval import Interval, interval_over, jackknife, mean_interval


def held(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in intervals]))


def area(kind: np.ndarray, scores: np.ndarray) -> float:
    """Under the receiver's curve: the share of pairs of both kinds that are in the right order."""
    return float((scores[kind, None] > scores[~kind]).mean())


@pytest.mark.parametrize("count", [4, 8, 30])
def test_intervals_of_means_hold_the_truth_as_often_as_they_say(count: int) -> None:
    stream = np.random.default_rng(0)
    found = [mean_interval(stream.standard_normal(count)) for _ in range(1000)]
    assert held(found, 0) == pytest.approx(0.9, abs=0.03)


def test_so_do_those_of_a_statistic_over_many_things() -> None:
    stream, found = np.random.default_rng(0), []
    kind = np.arange(200) % 2 == 0
    for _ in range(100):  # the area under the curve of normal scores a standard deviation apart
        scores = kind + stream.standard_normal(200)
        found.append(interval_over(lambda rows, s=scores: area(kind[rows], s[rows]), 200))
    assert held(found, 0.7602) == pytest.approx(0.9, abs=0.08)


def test_of_a_mean_it_is_the_standard_error() -> None:
    values = np.random.default_rng(0).standard_normal(20)
    found = interval_over(lambda rows: float(values[rows].mean()), 20)
    half = 1.729133 * values.std(ddof=1) / np.sqrt(20)  # Student's t of 19 degrees of freedom
    assert found.high - found.value == pytest.approx(half)
    assert found.value - found.low == pytest.approx(half)
    assert found.value == pytest.approx(values.mean())


@pytest.mark.parametrize("count", [1, 3])
def test_few_things_have_no_interval(count: int) -> None:
    for found in (
        mean_interval(np.arange(float(count))),
        jackknife(0.0, np.zeros(count)),
        interval_over(lambda rows: float(len(rows)), count),
    ):
        assert np.isnan(found.low) and np.isnan(found.high) and np.isfinite(found.value)


def test_missing_values_do_not_count() -> None:
    assert mean_interval(np.array([1.0, np.nan, 3.0])).value == 2
    assert np.isnan(mean_interval(np.array([np.nan])).value)


def test_the_same_seed_leaves_out_the_same_groups() -> None:
    values = np.random.default_rng(0).standard_normal(500) ** 2
    one, other = (interval_over(lambda rows: float(np.median(values[rows])), 500) for _ in range(2))
    assert one == other
