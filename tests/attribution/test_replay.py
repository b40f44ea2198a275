"""Each checkpoint stands for the epochs since the one before it; no visit is lost or doubled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrac.attribution.replay import chosen_epochs, plan_replays
from retrac.training.run import Run, choose_checkpoints
from retrac.training.steps import visit_weights


@given(start=st.integers(0, 50), length=st.integers(1, 60), count=st.integers(1, 80))
def test_chosen_epochs_are_distinct_within_the_interval_and_end_with_its_last(
    start: int, length: int, count: int
) -> None:
    interval = range(start, start + length)
    epochs = chosen_epochs(interval, str(count))
    assert epochs[-1] == interval[-1]
    assert len(set(epochs)) == len(epochs) == min(count, length)
    assert set(epochs) <= set(interval)
    assert chosen_epochs(interval, "last") == (interval[-1],)
    assert chosen_epochs(interval, "all") == tuple(interval)


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 80), st.integers(0, 200))
def test_each_choice_has_other_epochs_until_too_few_are_left(
    start: int, length: int, count: int, back: int
) -> None:
    interval = range(start, start + length)
    epochs = chosen_epochs(interval, str(count), back)
    assert len(set(epochs)) == len(epochs) == min(count, length)
    assert set(epochs) <= set(interval)
    choices = length // len(epochs)
    assert epochs == chosen_epochs(interval, str(count), back + choices)
    every = [e for turn in range(choices) for e in chosen_epochs(interval, str(count), turn)]
    assert len(set(every)) == len(every) == choices * len(epochs)


def test_visits_that_did_not_count_stand_for_an_interval_in_equal_parts(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        step._replace(learning_rate=0.0) if step.epoch == 1 else step for step in tiny_run.steps
    ]
    monkeypatch.setitem(tiny_run.__dict__, "steps", steps)
    first = plan_replays(tiny_run, tiny_run.checkpoints, "last")[0]
    np.testing.assert_array_equal(first.weights[0], first.total)
    assert (first.total[tiny_run.ledger.order(0)[10:]] > 0).all()


@pytest.mark.parametrize("replay", ["last", "all", "2"])
def test_weights_of_replayed_visits_add_up_to_the_interval_s(tiny_run: Run, replay: str) -> None:
    replays = plan_replays(tiny_run, tiny_run.checkpoints, replay)
    for each in replays:
        np.testing.assert_allclose(each.weights.sum(0), each.total)
    every = visit_weights(tiny_run.steps, tiny_run.ledger, range(tiny_run.checkpoints[-1].epoch))
    np.testing.assert_allclose(sum(each.total for each in replays), every.sum(0))


def test_leaving_checkpoints_out_loses_no_weight(tiny_run: Run) -> None:
    last = tiny_run.checkpoints[-1]
    (alone,) = plan_replays(tiny_run, choose_checkpoints(tiny_run, [last.epoch]), "last")
    each = plan_replays(tiny_run, tiny_run.checkpoints, "last")
    np.testing.assert_allclose(alone.total, sum(replay.total for replay in each))


def test_replaying_all_visits_uses_their_own_weights(tiny_run: Run) -> None:
    start = 0
    for replay in plan_replays(tiny_run, tiny_run.checkpoints, "all"):
        interval = range(start, replay.checkpoint.epoch)
        own = visit_weights(tiny_run.steps, tiny_run.ledger, interval)
        np.testing.assert_allclose(replay.weights, own)
        start = replay.checkpoint.epoch
