"""A run of `retrac train`: what its training left, opened for reading."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import UNet2DModel

from retrac.data.config import DatasetConfig
from retrac.data.dataset import ImageDataset
from retrac.diffusion.loss import Objective
from retrac.diffusion.model import load_unet
from retrac.diffusion.sampling import Making
from retrac.diffusion.schedule import make_scheduler
from retrac.diffusion.shown import Shown
from retrac.errors import RetracError
from retrac.training.config import FREE, TrainConfig
from retrac.training.inputs import training_inputs
from retrac.training.ledger import Ledger
from retrac.training.run import CHECKPOINTS, Checkpoint, Run, made_with
from retrac.training.state import read_point, whole_states
from retrac.training.steps import Step, read_steps, visit_weights


@dataclass(frozen=True)
class TrainedCheckpoint(Checkpoint):
    """Weights in diffusers' layout in a folder."""

    def load(self, shape: tuple[int, int, int]) -> UNet2DModel:
        """Load the trained network, on the CPU, channels last, in evaluation mode.

        Raises:
            RetracError: damaged; the checkpoint is named.
        """
        return load_unet(self.path, shape)

    def load_averaged(self, shape: tuple[int, int, int]) -> UNet2DModel:
        """Load the moving average of the weights, which generates; the same where none was kept."""
        average = self.path / "ema"
        return load_unet(average if average.is_dir() else self.path, shape)


@dataclass(frozen=True)
class TrainedRun(Run):
    """A run of `retrac train`: every event of its training is known.

    Attributes:
        config: how it was trained.
    """

    config: TrainConfig

    @staticmethod
    def of(path: Path, record: dict[str, Any]) -> "TrainedRun":
        """From what `run.json` says."""
        return TrainedRun(path, record, TrainConfig.from_json(record["config"]))

    @staticmethod
    def open(path: str | Path) -> "TrainedRun":
        """Open a run folder of `retrac train`.

        Raises:
            RetracError: as `Run.open`, or it was trained elsewhere.
        """
        run = Run.open(path)
        if not isinstance(run, TrainedRun):
            raise RetracError(
                f"{path} was adopted or imported, and how it was trained is not known: this trains "
                "again, for which it takes a run of `retrac train`"
            )
        if type(run) is not TrainedRun:
            raise RetracError(
                f"{path} is a replay: this trains again, for which it takes the run itself"
            )
        return run

    @property
    def data(self) -> DatasetConfig:
        """Which dataset it was trained on."""
        return self.config.data

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All whole checkpoints, by epoch.

        Raises:
            RetracError: there is none yet.
        """
        found = checkpoints_in(self.path)
        if not found:
            raise RetracError(f"{self.path} has no whole checkpoint yet; let `retrac train` finish")
        return found

    @cached_property
    def steps(self) -> list[Step]:
        """All optimiser steps."""
        return read_steps(self.path)

    @property
    def identity(self) -> str:
        """Tells this training from any other by its record and how its first epoch went.

        Training further does not change it.
        """
        return training_identity(self.record, self.steps[: self.steps_per_epoch])

    @property
    def origin(self) -> str:
        """Likewise by its record alone, which is there before the first step."""
        return training_identity(self.record)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return math.ceil(self.size / self.config.batch_size)

    @property
    def objective(self) -> Objective:
        """The loss it was trained with."""
        return Objective.of(self.config.objective)

    @property
    def making(self) -> Making:
        """How it generates."""
        return Making(make_scheduler(self.config.objective), self.shape)

    def shown(self, epoch: int, samples: np.ndarray) -> Shown:
        """What training showed the network of some samples in one epoch."""
        return training_inputs(self.dataset, self.ledger, epoch, samples, self.config.flip)

    def event_timesteps(self, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Likewise, without drawing their noises."""
        return self.ledger.events(epoch, samples, (0,)).timesteps.numpy()

    def visit_weights(self, epochs: Sequence[int]) -> np.ndarray:
        """η_v/B_v of every sample's visit in some epochs, float64 `[len(epochs), N]`.

        Raises:
            RetracError: an epoch is not wholly recorded.
        """
        return visit_weights(self.steps, self.ledger, epochs)

    @property
    def model_facts(self) -> dict[str, str | int | float]:
        """What a reader of a report wants to know of the training."""
        config = self.config
        return {
            "parameters": self.record.get("parameters", 0),
            "epochs trained": self.checkpoints[-1].epoch,
            "batch size": config.batch_size,
            "optimiser": config.optimisation.optimizer,
            "learning rate": config.optimisation.learning_rate,
            "loss": f"{config.objective.loss} on {config.objective.prediction}",
            "weights of generated queries": "moving average" if config.ema_decay else "trained",
            "schedule": f"{config.objective.schedule}, {config.objective.timesteps} timesteps",
        }


def checkpoints_in(path: Path) -> list[Checkpoint]:
    """All whole checkpoints in a run folder, by epoch."""
    folders = whole_states(path / CHECKPOINTS)
    return sorted(
        (TrainedCheckpoint(read_point(folder).epoch, folder) for folder in folders),
        key=lambda checkpoint: checkpoint.epoch,
    )


def training_identity(record: Mapping[str, Any], *known: Any) -> str:
    """Tells a training from others by data, events and settings, wherever the data lies.

    Args:
        record: as `run.json` has it.
        known: what else is known of it, as JSON values.
    """
    decided = [record[name] for name in ("dataset", "ledger")]
    config = record["config"]
    settings = {name: config[name] for name in sorted(config.keys() - FREE - {"data"})}
    told = json.dumps([decided, settings, *known], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def new_record(config: TrainConfig, dataset: ImageDataset, ledger: Ledger) -> dict[str, Any]:
    """Build what `run.json` says of a run about to start."""
    return {"config": config.to_json(), **made_with(dataset, ledger)}
