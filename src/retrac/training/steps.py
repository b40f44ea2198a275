"""`steps.parquet`: one row per optimiser step, and the weights of visits that follow from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrac.errors import RetracError
from retrac.files import write_whole
from retrac.training.ledger import Ledger

STEPS = "steps.parquet"


class Step(NamedTuple):
    """One optimiser step, counted from 0."""

    step: int
    epoch: int
    batch_size: int
    learning_rate: float
    loss: float


def write_steps(folder: Path, steps: Sequence[Step]) -> None:
    """Write a run's steps, whole or not at all."""
    columns = {name: [getattr(row, name) for row in steps] for name in Step._fields}
    with write_whole(folder / STEPS) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_steps(folder: Path) -> list[Step]:
    """Read a run's steps.

    Raises:
        RetracError: absent or damaged.
    """
    path = folder / STEPS
    try:
        columns = pq.read_table(path).to_pydict()
        return [Step(*row) for row in zip(*(columns[name] for name in Step._fields), strict=True)]
    except FileNotFoundError:
        raise RetracError(f"{path} does not exist: the run is not whole; train it again") from None
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise RetracError(f"{path} cannot be read ({error}); it may be damaged") from error


def visit_weights(steps: Sequence[Step], ledger: Ledger, epochs: Sequence[int]) -> np.ndarray:
    """η_v/B_v of every sample's visit in some epochs.

    Returns:
        float64 `[len(epochs), N]`: learning rate over batch size of the step that visited it.

    Raises:
        RetracError: an epoch is not wholly recorded.
    """
    by_epoch: dict[int, list[Step]] = {epoch: [] for epoch in epochs}
    for step in steps:
        if step.epoch in by_epoch:
            by_epoch[step.epoch].append(step)
    weights = np.zeros((len(epochs), ledger.size))
    for row, epoch in enumerate(epochs):
        rows = by_epoch[epoch]
        sizes = [step.batch_size for step in rows]
        if sum(sizes) != ledger.size:
            raise RetracError(
                f"{STEPS} records {sum(sizes)} of {ledger.size} visits in epoch {epoch}: "
                "it does not belong to these checkpoints"
            )
        weights[row, ledger.order(epoch)] = np.repeat(
            [step.learning_rate / step.batch_size for step in rows], sizes
        )
    return weights
