"""Errors of scores are those of constructed groups, whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrac.attribution.uncertainty import Uncertainty, moderate
from retrac.errors import RetracError

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
    told, first = found.first(20), np.argsort(-truth, 1)[:, :20]
    chance = told.membership
    belongs = np.zeros(truth.shape, bool)
    np.put_along_axis(belongs, first, True, 1)
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.01)):
        some = (low <= chance) & (chance < high)
        assert belongs[some].mean() == pytest.approx(chance[some].mean(), abs=0.15)
    assert ((told.certain > 0) & (told.certain < 20)).all()


def test_repeatability_is_what_a_repeat_shows() -> None:
    groups, truth, errors = made(noise=0.3, queries=20)
    again = truth + errors * np.random.default_rng(7).standard_normal(truth.shape)
    tops = [np.argsort(-scores, 1)[:, :20] for scores in (groups.sum(0), again)]
    shared = [len({*one} & {*two}) / 20 for one, two in zip(*tops, strict=True)]
    assert Uncertainty.of(groups).first(20).repeatability.mean() == pytest.approx(
        np.mean(shared), abs=0.07
    )


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_luck_with_heavy_tails_makes_nobody_certain(noise: float) -> None:
    """A few events tower above all others, and fall on other samples in a repeat."""
    stream = np.random.default_rng(3)
    truth = stream.choice([-1.0, 1.0], (8, 1000)) + 0.01 * stream.standard_normal((8, 1000))

    def repeat() -> np.ndarray:
        return truth + noise * stream.standard_t(2, (3, 8, 1000))

    groups, again = repeat(), repeat()
    tops = [np.argsort(-scores.sum(0), 1)[:, :10] for scores in (groups, again)]
    shared = np.mean([len({*one} & {*two}) / 10 for one, two in zip(*tops, strict=True)])
    told = Uncertainty.of(groups).first(10)
    assert told.certain.mean() < 0.2
    assert told.repeatability.mean() == pytest.approx(shared, abs=0.05)


@given(
    arrays(float, (3, 2, 12), elements=st.floats(-1e3, 1e3, width=32)),
    st.integers(1, 15),
)
def test_shares_are_shares_and_lists_are_full(groups: np.ndarray, k: int) -> None:
    told = Uncertainty.of(groups).first(k)
    np.testing.assert_allclose(told.membership.sum(1), min(k, 12))
    assert ((told.membership >= 0) & (told.membership <= 1)).all()
    assert ((told.certain >= 0) & (told.certain <= min(k, 12))).all()
    assert ((told.repeatability >= 0) & (told.repeatability <= 1)).all()


def test_without_noise_everything_is_certain_and_repeats() -> None:
    groups, _, _ = made(noise=1e-9)
    found = Uncertainty.of(groups)
    assert found.first(10).certain == [10]
    assert found.first(10).repeatability == [pytest.approx(1)]
    assert found.halves == [pytest.approx(1)]


def test_with_noise_alone_nothing_is() -> None:
    found = Uncertainty.of(np.random.default_rng(0).standard_normal((4, 1, 2000)))
    assert found.first(10).certain == [0]
    assert found.first(10).repeatability < 0.1
    assert abs(found.halves) < 0.15


@pytest.mark.parametrize("samples", [46, 256])
def test_with_noise_alone_nobody_is_certain_in_a_short_list_either(samples: int) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 60, samples))
    told = Uncertainty.of(noise).first(10)
    assert told.certain.sum() == 0
    assert told.membership.mean() == pytest.approx(10 / samples)
    assert told.membership.max() < 0.95


def test_equal_scores_share_their_places() -> None:
    told = Uncertainty.of(np.zeros((3, 1, 40))).first(10)
    assert told.certain == [0] and told.membership.max() < 0.5


def test_one_group_shows_no_error() -> None:
    with pytest.raises(RetracError, match="more --checkpoints"):
        Uncertainty.of(np.ones((1, 2, 3)))


def test_scores_that_do_not_vary_have_no_error() -> None:
    found = Uncertainty.of(np.zeros((3, 1, 5)))
    assert (found.errors == 0).all() and (found.scores == 0).all()


def test_a_sample_that_nothing_showed_has_no_error() -> None:
    groups, _, _ = made()
    groups[..., 7] = 0
    groups[0, 0, 8] = 0
    errors = Uncertainty.of(groups).errors[0]
    assert errors[7] == 0 and (np.delete(errors, 7) > 0).all()
