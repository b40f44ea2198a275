"""What `steps.parquet` holds, and the weights of visits that follow from it."""

from pathlib import Path

import numpy as np
import pytest

from retrac.errors import RetracError
from retrac.training.ledger import Ledger
from retrac.training.run import Run
from retrac.training.steps import Step, read_steps, visit_weights, write_steps

STEPS = [
    Step(0, 0, 3, 0.1, 1.5),
    Step(1, 0, 2, 0.2, 1 / 3),
    Step(2, 1, 3, 0.4, 0.25),
    Step(3, 1, 2, 0.8, float("inf")),
]


def test_steps_come_back_exactly(tmp_path: Path) -> None:
    write_steps(tmp_path, STEPS)
    assert read_steps(tmp_path) == STEPS


def test_a_visit_weighs_learning_rate_over_batch_size() -> None:
    ledger = Ledger(seed=1, size=5)
    weights = visit_weights(STEPS, ledger, [1, 0])
    for row, epoch in enumerate([1, 0]):
        first, second = ledger.batches(epoch, 3)
        rates = [step.learning_rate for step in STEPS if step.epoch == epoch]
        assert weights[row, first].tolist() == [rates[0] / 3] * 3
        assert weights[row, second].tolist() == [rates[1] / 2] * 2


def test_the_weights_of_a_real_run_add_up_to_its_learning_rates(tiny_run: Run) -> None:
    weights = visit_weights(tiny_run.steps, tiny_run.ledger, range(6))
    assert weights.shape == (6, 24) and (weights > 0).all()
    rates = [step.learning_rate for step in tiny_run.steps]
    assert weights.sum() == pytest.approx(np.sum(rates))


@pytest.mark.parametrize("epochs", [[2], [0, 2]])
def test_epochs_that_are_not_wholly_recorded_are_refused(epochs: list[int]) -> None:
    with pytest.raises(RetracError, match="records 0 of 5 visits in epoch 2"):
        visit_weights(STEPS, Ledger(1, 5), epochs)
    with pytest.raises(RetracError, match="records 3 of 5 visits in epoch 1"):
        visit_weights(STEPS[:-1], Ledger(1, 5), [1])


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    with pytest.raises(RetracError, match=f"{path} does not exist"):
        read_steps(tmp_path)
    write_steps(tmp_path, STEPS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RetracError, match=f"{path} cannot be read"):
        read_steps(tmp_path)
