"""The same training again from one of its checkpoints, in which samples count otherwise.

Events, order, first weights, state of the optimiser, rates, clipping and moving average are the
run's own; where all samples count 1, so are the weights at the end, to the bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np

from retrac.errors import RetracError
from retrac.files import write_whole
from retrac.fingerprints import digest
from retrac.training.config import ReplayConfig, TrainConfig
from retrac.training.loop import Training, first_weights, make_accelerator
from retrac.training.recording import NoRecording
from retrac.training.run import CHECKPOINTS
from retrac.training.sample_weights import SampleWeights
from retrac.training.steps import STEPS, write_steps
from retrac.training.trained import TrainedRun, training_identity

REPLAYED = "replayed"
WEIGHTS = "weights.npz"


@dataclass(frozen=True)
class ReplayedRun(TrainedRun):
    """A run of `retrac replay`: its events are those of the run that was replayed."""

    @staticmethod
    def of(path: Path, record: dict[str, Any]) -> "ReplayedRun":
        """From what `run.json` says."""
        return ReplayedRun(path, record, TrainConfig.from_json(record["config"]))

    @cached_property
    def sample_weights(self) -> SampleWeights:
        """How much each sample counted from `from_epoch` on.

        Raises:
            RetracError: they are absent or damaged.
        """
        path, told = self.path / WEIGHTS, self.record[REPLAYED]
        try:
            with np.load(path, allow_pickle=False) as file:
                values = file["weights"]
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise RetracError(f"{path} cannot be read ({error}): replay again") from error
        if digest(values) != told["weights"]:
            raise RetracError(f"{path} does not belong to {self.path}: replay again")
        return SampleWeights(values, told["mean_over"])

    @property
    def from_epoch(self) -> int:
        """Whole epochs before the first step that was replayed."""
        return int(self.record[REPLAYED]["from_epoch"])

    @property
    def identity(self) -> str:
        """Tells this replay from the run and from any other replay."""
        first = self.steps[: self.steps_per_epoch]
        return training_identity(self.record, self.record[REPLAYED], first)

    @property
    def origin(self) -> str:
        """Likewise by its record alone."""
        return training_identity(self.record, self.record[REPLAYED])

    def visit_weights(self, epochs: Sequence[int]) -> np.ndarray:
        """η_v w_i/D_v of every sample's visit in some epochs, float64 `[len(epochs), N]`."""
        found = super().visit_weights(epochs)
        weights = self.sample_weights
        for row, epoch in zip(found, epochs, strict=True):
            if epoch < self.from_epoch:
                continue
            for batch in self.ledger.batches(epoch, self.config.batch_size):
                row[batch] *= len(batch) * weights.share(batch) * weights.values[batch]
        return found


def replay(
    run: TrainedRun, weights: np.ndarray, config: ReplayConfig, output: str | Path
) -> ReplayedRun:
    """Replay a training, or go on with a replay that was stopped.

    Args:
        run: what `retrac train` made.
        weights: `[N]`, how much each sample's loss counts from `config.from_epoch` on: 1 as it
            did, 0 not at all.
        config: the window.
        output: a run folder of its own.

    Returns:
        A run that generates from the same noises as the other. Methods that add up events give
        visits what they counted here; those that compare features take all samples alike, also
        those that were left out.

    Raises:
        RetracError: no checkpoint there, weights that make no sense, another run in `output`, no
            space left, or as `train`.
        Interrupted: stopped by a signal; the state is saved.
    """
    found = planned(run, weights, config, output)
    accelerator = make_accelerator(found.config)
    if accelerator.is_main_process:
        _begin(run, found, weights)
    accelerator.wait_for_everyone()
    model = first_weights(found.config, run.shape)
    Training(
        found.config,
        found.path,
        accelerator,
        run.dataset,
        run.ledger,
        model,
        NoRecording(),
        found.sample_weights,
    ).run()
    accelerator.wait_for_everyone()
    return ReplayedRun.of(found.path, found.record)


def planned(
    run: TrainedRun, weights: np.ndarray, config: ReplayConfig, output: str | Path
) -> ReplayedRun:
    """What a folder will hold, or goes on with; nothing is written.

    Raises:
        RetracError: as `replay` before its first step.
    """
    epochs = [checkpoint.epoch for checkpoint in run.checkpoints]
    first, last = config.from_epoch, epochs[-1] if config.to_epoch is None else config.to_epoch
    if first not in (0, *epochs):
        raise RetracError(
            f"{run.path} has no checkpoint after epoch {first}: --from-epoch can be "
            f"{', '.join(map(str, (0, *epochs[:-1])))}"
        )
    if not first < last <= epochs[-1]:
        raise RetracError(
            f"--to-epoch must be after --from-epoch and at most {epochs[-1]}, where {run.path} "
            f"ends: not {first} to {last}"
        )
    values = np.asarray(weights, np.float32)
    if values.shape != (run.size,) or not (np.isfinite(values) & (values >= 0)).all():
        raise RetracError(f"weights must be {run.size} numbers of at least 0, one for each sample")
    if not values.any():
        raise RetracError("no sample counts: leave some in")
    settings = replace(run.config, epochs=last)
    told = {
        "trained": run.identity,
        "from_epoch": first,
        "mean_over": config.mean_over,
        "weights": digest(values),
    }
    record = {**run.record, "kind": REPLAYED, "config": settings.to_json(), REPLAYED: told}
    found = ReplayedRun(Path(output), record, settings)
    found.is_there(_beginnings(found))
    return found


def _beginnings(found: ReplayedRun) -> list[str]:
    """What a replay that was stopped before its record can have left."""
    names = [WEIGHTS, STEPS, CHECKPOINTS]
    return [*names, *(f"{name}.partial" for name in (*names, "run.json"))]


def _begin(run: TrainedRun, found: ReplayedRun, weights: np.ndarray) -> None:
    """Write what comes before the first step; the record last, with which the folder is a run."""
    begun = _beginnings(found)
    if found.is_there(begun):
        return
    with write_whole(found.path / WEIGHTS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, weights=weights.astype(np.float32))
    epoch = found.from_epoch
    if epoch:
        steps = epoch * math.ceil(run.size / run.config.batch_size)
        write_steps(found.path, run.steps[:steps])
        (source,) = (each.path for each in run.checkpoints if each.epoch == epoch)
        with write_whole(found.path / CHECKPOINTS / source.name) as temporary:
            copytree(source, temporary)
    found.save(begun)
