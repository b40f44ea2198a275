"""Errors of scores are those of constructed groups, whose truth is known."""

import numpy as np
import pytest

from retrac.errors import RetracError
from retrac.influence.uncertainty import Uncertainty, moderate

SIZES = np.array([3.0, 1.0, 0.5, 0.5])[:, None, None]


def made(samples: int = 2000, noise: float = 1.0, queries: int = 1, seed: int = 0):
    """Four groups of very different size, `[G, Q, N]`, and what their sums are without noise."""
    stream = np.random.default_rng(seed)
    truth = stream.standard_normal((queries, samples))
    spread = noise * np.sqrt(8 / stream.chisquare(8, (queries, samples)))  # samples differ in it
    groups = SIZES * (truth + spread * stream.standard_normal((4, queries, samples)))
    return groups, SIZES.sum() * truth, spread * np.sqrt(np.square(SIZES).sum())


def test_errors_are_those_of_the_sum() -> None:
    groups, _, errors = made()
    found = Uncertainty.of(groups)
    np.testing.assert_allclose(found.scores, groups.sum(0))
    assert np.median(found.errors / errors) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say(level: float) -> None:
    groups, truth, _ = made()
    low, high = Uncertainty.of(groups).intervals(level)
    held = ((low <= truth) & (truth <= high)).mean()
    assert held == pytest.approx(level, abs=0.03)


def test_variances_that_are_alike_become_one_and_others_stay_their_own() -> None:
    stream = np.random.default_rng(0)
    alike = stream.chisquare(3, 5000) / 3
    variances, freedom = moderate(alike, 3)
    assert freedom > 50 and variances.std() < 0.1
    assert variances.mean() == pytest.approx(1, abs=0.03)
    unlike = alike * np.exp(3 * stream.standard_normal(5000))
    variances, freedom = moderate(unlike, 3)
    assert 3 < freedom < 4
    assert np.corrcoef(np.log(variances), np.log(unlike))[0, 1] > 0.95


def test_the_prior_s_degrees_of_freedom_are_found() -> None:
    stream = np.random.default_rng(1)
    true = 8 / stream.chisquare(8, 20000)
    _, freedom = moderate(true * stream.chisquare(3, 20000) / 3, 3)
    assert freedom == pytest.approx(3 + 8, rel=0.15)


def test_certain_members_belong_to_the_true_list() -> None:
    groups, truth, _ = made(noise=0.3, queries=20)
    found = Uncertainty.of(groups)
    chance, first = found.membership(20), np.argsort(-truth, 1)[:, :20]
    belongs = np.zeros(truth.shape, bool)
    np.put_along_axis(belongs, first, True, 1)
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.01)):
        some = (low <= chance) & (chance < high)
        assert belongs[some].mean() == pytest.approx(chance[some].mean(), abs=0.15)
    certain = found.certain(20)
    assert ((certain > 0) & (certain < 20)).all()


def test_repeatability_is_what_a_repeat_shows() -> None:
    groups, truth, _ = made(noise=0.3, queries=20)
    stream = np.random.default_rng(7)
    again = truth + 0.3 * np.sqrt(np.square(SIZES).sum()) * stream.standard_normal(truth.shape)
    tops = [np.argsort(-scores, 1)[:, :20] for scores in (groups.sum(0), again)]
    shared = [len({*one} & {*two}) / 20 for one, two in zip(*tops, strict=True)]
    assert Uncertainty.of(groups).repeatability(20).mean() == pytest.approx(
        np.mean(shared), abs=0.07
    )


def test_without_noise_everything_is_certain_and_repeats() -> None:
    groups, _, _ = made(noise=1e-9)
    found = Uncertainty.of(groups)
    assert found.certain(10) == [10]
    assert found.repeatability(10) == [1]
    assert found.halves == [pytest.approx(1)]


def test_with_noise_alone_nothing_is() -> None:
    found = Uncertainty.of(np.random.default_rng(0).standard_normal((4, 1, 2000)))
    assert found.certain(10) == [0]
    assert found.repeatability(10) < 0.1
    assert abs(found.halves) < 0.15


def test_one_group_shows_no_error() -> None:
    with pytest.raises(RetracError, match="more --checkpoints"):
        Uncertainty.of(np.ones((1, 2, 3)))


def test_scores_that_do_not_vary_have_no_error() -> None:
    found = Uncertainty.of(np.zeros((3, 1, 5)))
    assert (found.errors == 0).all() and (found.scores == 0).all()
