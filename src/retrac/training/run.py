"""The run folder: a model, its samples and its events, wherever they come from."""

import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrac.data.config import DatasetConfig
from retrac.data.dataset import ImageDataset
from retrac.data.open import open_dataset
from retrac.diffusion.calls import Conditions
from retrac.diffusion.loss import Loss
from retrac.diffusion.sampling import Making
from retrac.diffusion.shown import Seen, Shown
from retrac.errors import RetracError
from retrac.files import read_json, write_json
from retrac.training.ledger import Ledger

RUN = "run.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Checkpoint(ABC):
    """Weights at `path`, before which the events of `epoch` whole epochs stand."""

    epoch: int
    path: Path

    @abstractmethod
    def load(self, shape: tuple[int, int, int]) -> Any:
        """Load the trained network, on the CPU, in evaluation mode.

        Raises:
            RetracError: absent or damaged; the checkpoint is named.
        """

    def load_averaged(self, shape: tuple[int, int, int]) -> Any:
        """Load the moving average of the weights, which generates; the same where none was kept."""
        return self.load(shape)


@dataclass(frozen=True)
class Run(ABC):
    """A model, its checkpoints, the samples it was trained on, and events of each.

    Attributes:
        path: the run folder.
        record: the whole of `run.json`.
    """

    path: Path
    record: dict[str, Any]

    @staticmethod
    def open(path: str | Path) -> "Run":
        """Open a run folder: of `retrac train`, `retrac adopt` or `retrac import`.

        Raises:
            RetracError: not a run, half-written, or made with a random generator that differs
                from this machine's.
        """
        from retrac.training.adopted import ADOPTED, AdoptedRun
        from retrac.training.imported import IMPORTED, ImportedRun
        from retrac.training.own import OWN
        from retrac.training.replaying import REPLAYED, ReplayedRun
        from retrac.training.trained import TrainedRun

        kinds: dict[Any, type[AdoptedRun | ImportedRun | TrainedRun]] = {
            ADOPTED: AdoptedRun,
            IMPORTED: ImportedRun,
            REPLAYED: ReplayedRun,
        }
        path = Path(path)
        if not path.is_dir():
            raise RetracError(f"no run at {path}: the folder does not exist")
        if not (path / RUN).is_file():
            raise RetracError(f"no run at {path}: it has no {RUN}; train one with `retrac train`")
        record = read_json(path / RUN)
        if record.get("kind") == OWN:
            raise RetracError(
                f"{path} is of a module of your own, which only your code can load: open it by "
                "`retrac.adopt_module`"
            )
        try:
            run = kinds.get(record.get("kind"), TrainedRun).of(path, record)
            reproduced = run.ledger.digest() == record["ledger"]["digest"]
            if missing := {"name", "fingerprint", "size", "shape"} - record["dataset"].keys():
                raise KeyError(*missing)
        except (AttributeError, KeyError, TypeError, ValueError, RetracError) as error:
            reason = error if isinstance(error, RetracError) else repr(error)
            raise RetracError(
                f"{path / RUN} cannot be read ({reason}): it is damaged, or of another version"
            ) from error
        if not reproduced:
            raise RetracError(
                f"the random generator here does not reproduce the events of {path}: it was "
                f"made with NumPy {record.get('versions', {}).get('numpy', '?')}; install that"
            )
        return run

    def is_there(self, begun: Sequence[str] = ()) -> bool:
        """Whether the run folder holds this run.

        Args:
            begun: names that may be in a folder that does not hold it yet.

        Raises:
            RetracError: the folder holds something else.
        """
        path = self.path
        if (path / RUN).is_file():
            earlier = read_json(path / RUN)
            if {**earlier, "versions": None} != {**self.record, "versions": None}:
                raise RetracError(f"{path} holds another run; choose another --output")
            return True
        if path.exists() and {entry.name for entry in path.iterdir()} - {*begun}:
            raise RetracError(f"{path} exists and is not a run; choose another --output")
        return False

    def save(self, begun: Sequence[str] = ()) -> None:
        """Write the record into the run folder, or do nothing where it is there.

        Raises:
            RetracError: as `is_there`.
        """
        if not self.is_there(begun):
            write_json(self.path / RUN, self.record)

    @property
    @abstractmethod
    def data(self) -> DatasetConfig:
        """Which dataset the samples are."""

    @property
    @abstractmethod
    def checkpoints(self) -> list[Checkpoint]:
        """All whole checkpoints, by epoch.

        Raises:
            RetracError: there is none yet.
        """

    @property
    @abstractmethod
    def objective(self) -> Loss:
        """The loss it was trained with."""

    @property
    @abstractmethod
    def making(self) -> Making:
        """How it generates."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Tells this model and its events from any other."""

    @property
    @abstractmethod
    def model_facts(self) -> dict[str, str | int | float]:
        """What a reader of a report wants to know of the model and its events."""

    @abstractmethod
    def shown(self, epoch: int, samples: np.ndarray) -> Shown:
        """What an event of each of some samples shows the network; `epoch` counts from 0."""

    @property
    def events_known(self) -> bool:
        """Whether events are those of the training, and none that were drawn in their place."""
        return True

    def event_timesteps(self, epoch: int, samples: np.ndarray) -> np.ndarray:
        """The timesteps of those events, int64 `[B]`."""
        return self.shown(epoch, samples).timesteps.numpy()

    def known_epochs(self, interval: range) -> Sequence[int]:
        """Those epochs of the interval before a checkpoint whose events are known, the last among
        them: all."""
        return interval

    @abstractmethod
    def visit_weights(self, epochs: Sequence[int]) -> np.ndarray:
        """How much each sample's events count, float64 `[len(epochs), N]`."""

    @cached_property
    def ledger(self) -> Ledger:
        """The events."""
        kept = self.record["ledger"]
        return Ledger(int(kept["seed"]), int(kept["size"]), int(kept["timesteps"]))

    @cached_property
    def dataset(self) -> ImageDataset:
        """The training set.

        Raises:
            RetracError: it is not the one that the run was made with.
        """
        dataset = open_dataset(self.data)
        if dataset.fingerprint != self.record["dataset"]["fingerprint"]:
            raise RetracError(
                f"the dataset {dataset.name!r} has changed since {self.path} was trained on it "
                f"(then {self.record['dataset']['size']} samples, now {len(dataset)}, other "
                "content or order): restore it, or make the run again"
            )
        return dataset

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What a reader of a report wants to know of the run."""
        told, (channels, *sides) = self.record["dataset"], self.shape
        return {
            "run": self.path.name,
            "dataset": told["name"],
            "samples": self.size,
            "image": "×".join(map(str, sides)) + f", {channels} channels",
            "dataset fingerprint": told["fingerprint"][:16],
            **self.model_facts,
            "seed": self.ledger.seed,
        }

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The N labels of the samples; empty where there is none."""
        return self.dataset.labels or ("",) * self.size

    @property
    def trained(self) -> str:
        """Regular expression: what the names of trained parameters have in them."""
        return ".*"

    @property
    def told(self) -> bool:
        """Whether its network is told anything of a sample."""
        return False

    def encode_on(self, device: torch.device) -> None:  # noqa: B027
        """Let what encodes images and texts work on a device; here nothing does."""

    @property
    def size(self) -> int:
        """N."""
        return int(self.record["dataset"]["size"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        channels, height, width = self.record["dataset"]["shape"]
        return channels, height, width

    @property
    def timesteps(self) -> int:
        """T."""
        return self.ledger.timesteps

    @property
    def example(self) -> Seen:
        """One sample as the network sees it, of any numbers: for its size."""
        return self.seen(np.zeros((1, *self.shape), np.uint8), ("",))

    def seen(self, images: np.ndarray, labels: Sequence[str]) -> Seen:
        """Images uint8 `[B, C, H, W]` as the network sees them, in [-1, 1].

        Args:
            images: of samples or queries.
            labels: theirs; empty where there is none.
        """
        return Seen(torch.from_numpy(images).float() / 127.5 - 1, self.conditions(labels))

    def conditions(self, labels: Sequence[str]) -> Conditions:
        """What the network is told of images with these labels: nothing."""
        return {}

    def generated_labels(self, indices: Sequence[int]) -> tuple[str, ...]:
        """The label of each image that it generates: none."""
        return ("",) * len(indices)


def choose_checkpoints(run: Run, epochs: Sequence[int]) -> list[Checkpoint]:
    """The run's checkpoints after the given epochs; all of them if none are given.

    Raises:
        RetracError: some epoch has no checkpoint.
    """
    there = {checkpoint.epoch: checkpoint for checkpoint in run.checkpoints}
    for epoch in epochs:
        if epoch not in there:
            raise RetracError(
                f"{run.path} has no checkpoint after epoch {epoch}: there are "
                f"{', '.join(map(str, there))}"
            )
    return [there[epoch] for epoch in sorted(set(epochs) or there)]


def made_with(dataset: ImageDataset, ledger: Ledger) -> dict[str, Any]:
    """What `run.json` says of the samples, the events and the versions of libraries."""
    packages = ("diffusion-retrac", "torch", "diffusers", "accelerate", "numpy")
    return {
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "size": len(dataset),
            "shape": list(dataset.shape),
        },
        "ledger": {
            "seed": ledger.seed,
            "size": ledger.size,
            "timesteps": ledger.timesteps,
            "digest": ledger.digest(),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }
