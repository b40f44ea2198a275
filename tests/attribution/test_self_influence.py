"""Self-influence is the diagonal of the scores."""

import numpy as np
import pytest

import retrac
from retrac.attribution.config import ComputeConfig, PlanConfig
from retrac.attribution.norms import norms
from retrac.attribution.queries import training_samples
from retrac.attribution.self_influence import SelfInfluence, self_influence, spread
from retrac.errors import RetracError
from retrac.training.run import Run
from tiny import PUBLISHED

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)


def test_it_is_each_sample_s_score_on_itself(tiny_run: Run, tmp_path) -> None:
    chosen = [1, 4, 9]
    found = self_influence(tiny_run, chosen, plan=PLAN, output=tmp_path / "o")
    scores = retrac.attribute(
        tiny_run, training_samples(tiny_run, "q", chosen), PUBLISHED, plan=PLAN
    )
    for method in ("tracin", "retrac"):
        own = [scores.scores_of(method).values[row, sample] for row, sample in enumerate(chosen)]
        ranked = found.ranked(method)
        assert [entry.rank for entry in ranked] == [1, 2, 3]
        assert {e.sample: pytest.approx(e.score, rel=1e-4) for e in ranked} == dict(
            zip(chosen, own, strict=True)
        )
        assert ranked == sorted(ranked, key=lambda entry: -entry.score)
    reopened = SelfInfluence.open(tmp_path / "o")
    assert reopened.ranked("retrac", 1) == found.ranked("retrac", 1)
    np.testing.assert_array_equal(reopened.image(4), tiny_run.dataset.images[4])


def test_small_memory_and_small_blocks_give_the_same(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = self_influence(tiny_run, range(12), plan=PLAN)
    monkeypatch.setattr("retrac.attribution.self_influence.BLOCK", 5)
    monkeypatch.setattr("retrac.attribution.memory.TEMPORARY_BYTES", 2**18)
    small = self_influence(tiny_run, range(12), plan=PLAN, compute=ComputeConfig("3MB"))
    scale = float(np.abs(whole.dataset["score"]).max())
    np.testing.assert_allclose(
        small.dataset["score"], whole.dataset["score"], rtol=0, atol=1e-5 * scale
    )


def test_a_subset_is_spread_evenly() -> None:
    assert spread(10, None) is None
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(3, 100) == [0, 1, 2]
    with pytest.raises(RetracError, match="at least 1"):
        spread(10, 0)


def test_norms_agree_with_those_of_attribution(tiny_run: Run) -> None:
    result = retrac.attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN)
    measured = norms(tiny_run, sample=2, timesteps=6)
    every = result.dataset["train_norm"].values[:, :, 0]
    np.testing.assert_allclose(measured.dataset["train_norm"], every, rtol=1e-4)
    np.testing.assert_allclose(measured.dataset["sample_trained_norm"], every[:, 2], rtol=1e-4)
    np.testing.assert_array_equal(
        measured.dataset["sample_timestep"], result.dataset["train_timestep"].values[:, 2, 0]
    )


def test_norms_of_a_sample_that_does_not_exist(tiny_run: Run) -> None:
    with pytest.raises(RetracError, match="there is no sample 5000"):
        norms(tiny_run, sample=5000)


def test_a_contribution_that_is_not_a_number_is_not_passed_over(tiny_run: Run) -> None:
    found = self_influence(tiny_run, [1], plan=PLAN)
    found.dataset["score"][:, 0, 0] = np.nan
    assert np.isnan(found.ranked("tracin")[0].score)
