"""The intervention: the same samples at another timestep."""

import dataclasses

import numpy as np
import pytest

from retrac.attribution.attribute import attribution_of
from retrac.attribution.config import AttributeConfig, PlanConfig
from retrac.attribution.queries import open_queries
from retrac.errors import RetracError
from retrac.evaluation.bias import loudest_timestep
from retrac.evaluation.moving import Moving, loudest_moments, moved_scores
from retrac.training.run import Run
from tiny import PUBLISHED

WAY = AttributeConfig(PUBLISHED, checkpoints=(6,), plan=PlanConfig(plan_timesteps=2, plan_noises=2))


def test_a_sample_that_is_moved_to_where_it_was_keeps_its_scores(tiny_run: Run) -> None:
    queries = open_queries(tiny_run, "train:2")
    found = attribution_of(tiny_run, queries, WAY)
    sample = 7
    moment = int(found.dataset["train_timestep"].values[0, sample, 0])
    samples = np.array([sample, 3])
    moved = moved_scores(tiny_run, WAY, queries, samples, {6: moment})
    assert tuple(moved) == PUBLISHED
    for name, values in moved.items():
        scores = found.scores_of(name).values
        np.testing.assert_allclose(values[:, 0], scores[:, sample], rtol=1e-4)
        assert not np.allclose(values[:, 1], scores[:, 3], rtol=1e-2)


def test_methods_without_events_have_nothing_to_move(tiny_run: Run) -> None:
    queries, some = open_queries(tiny_run, "train:2"), np.array([3])
    both = dataclasses.replace(WAY, methods=("kernel-retrac", "tracin"))
    assert list(moved_scores(tiny_run, both, queries, some, {6: 10})) == ["tracin"]
    alone = dataclasses.replace(WAY, methods=("kernel-retrac",))
    with pytest.raises(RetracError, match="no method here adds up events"):
        moved_scores(tiny_run, alone, queries, some, {6: 10})


def test_the_loudest_timestep_is_the_middle_of_the_loudest_part() -> None:
    timesteps = np.arange(100)
    norms = np.where((timesteps >= 40) & (timesteps < 45), 9.0, 1.0)
    assert loudest_timestep(timesteps, norms) == 42
    together = loudest_moments(
        np.stack([timesteps, timesteps])[..., None],
        np.stack([norms, np.roll(norms, 20)])[..., None],
        np.array([5, 10]),
    )
    assert together == {5: 42, 10: 62}


def test_moved_samples_are_counted_where_they_would_stand() -> None:
    scores = np.arange(20.0)  # the last ten are first
    metric = Moving(np.array([0, 19]), k=10)
    metric.update(scores, moved=np.array([30.0, 5.0]))
    found = {name: interval.value for name, interval in metric.compute().items()}
    assert found == {"in the first 10 as trained": 0.5, "in the first 10 moved": 0.5}


def test_a_sample_does_not_compete_with_its_former_self() -> None:
    scores = np.arange(20.0)
    metric = Moving(np.array([19]), k=10)
    metric.update(scores, moved=np.array([9.5]))  # nine others are above, and its own 19
    assert metric.compute()["in the first 10 moved"].value == pytest.approx(1.0)
