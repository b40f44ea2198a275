"""A training of the paper's published code: its checkpoint files, made into a run folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from retrac.data.config import DatasetConfig
from retrac.data.open import open_dataset
from retrac.diffusion.calls import published
from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.loss import DISTANCES, Objective
from retrac.diffusion.model import ready
from retrac.diffusion.published import published_unet
from retrac.diffusion.sampling import Making
from retrac.diffusion.schedule import make_scheduler, process_of
from retrac.diffusion.shown import Seen, Shown
from retrac.errors import RetracError
from retrac.files import read_json, write_json, write_whole
from retrac.fingerprints import digest, fingerprint
from retrac.progress import progress
from retrac.training.config import ImportConfig
from retrac.training.events import RecordedEvents
from retrac.training.ledger import Ledger
from retrac.training.published import PublishedCheckpoint, published_files
from retrac.training.run import CHECKPOINTS, Checkpoint, Run, made_with
from retrac.training.state import read_tensors

IMPORTED = "imported"
IMPORTED_PARTS = ("checkpoints", "network", "dataset", "ledger")
"""What the record has that tells a training, its data and its events from others."""
WEIGHTS = "weights.safetensors"
MADE = "checkpoint.json"
BEGUN = (CHECKPOINTS,)
"""What there is of a run that is half-made."""
EVENTS = {
    "recorded": "recorded by the published code in the last epoch before each checkpoint, which "
    "stands for all epochs since the checkpoint before",
    "fresh": "fresh, drawn anew for each checkpoint as the published code does, not those of "
    "training: scores are no replay",
}


def import_published(folder: str | Path, config: ImportConfig, output: str | Path) -> "ImportedRun":
    """Make a run folder of the checkpoint files of the published code; they are not needed then.

    Stopped at any moment, the same call goes on.

    Args:
        folder: with its `ckpt_{epoch}_{step}.pth`.
        config: what they do not say.
        output: the run folder; one of the same files and settings is opened.

    Raises:
        RetracError: no such files or dataset, files that are damaged, hold anything but tensors and
            lists, or do not fit the dataset or each other, or another run in `output`.
    """
    path, config = Path(output), config.located()
    files = published_files(Path(folder))
    dataset = open_dataset(config.data)
    ledger = Ledger(config.seed, len(dataset), config.timesteps)
    entries, networks = [], []
    for epoch, file in files.items():
        found = PublishedCheckpoint.read(file)
        found.refuse_unfit(len(dataset), dataset.shape, config.timesteps)
        entries.append(_entry(epoch, found))
        networks.append(_network(found, dataset.shape))
        if networks[-1] != networks[0]:
            raise RetracError(
                f"{file.name} is of another network than {entries[0]['file']}: widths "
                f"{networks[-1]['widths']} and {networks[0]['widths']}; import them apart"
            )
    record = {
        "kind": IMPORTED,
        "config": config.to_json(),
        "checkpoints": entries,
        "network": networks[0],
        **made_with(dataset, ledger),
    }
    run = ImportedRun.of(path, record)
    if run.is_there(BEGUN):
        return run
    with progress("import", len(files), "checkpoints") as advance:
        for entry, file in zip(entries, files.values(), strict=True):
            made = {**entry, "made": digest([entry, config.events, dataset.fingerprint])}
            inner = path / CHECKPOINTS / f"epoch-{entry['epoch']:04d}"
            advance(0, note=file.name)
            if not (inner / MADE).is_file() or read_json(inner / MADE) != made:
                _convert(PublishedCheckpoint.read(file), inner, made, config.events == "recorded")
            advance()
    run.save(BEGUN)
    return run


@dataclass(frozen=True)
class ImportedCheckpoint(Checkpoint):
    """Weights after `epoch` whole epochs, and the events of the last of them."""

    def load(self, shape: tuple[int, int, int]) -> nn.Module:
        """Load the network, on the CPU, channels last, in evaluation mode.

        Raises:
            RetracError: absent or damaged.
        """
        return ready(published_unet(read_tensors(self.path / WEIGHTS)))


@dataclass(frozen=True)
class ImportedRun(Run):
    """A run of `retrac import`.

    Each checkpoint stands for the epochs since the one before. Of these the published code recorded
    the last, so what a sample's gradient was there, or at a fresh event, counts for all of them, as
    in its own sums. It does not record the learning rate, which is taken as constant: a visit
    counts 1/B.

    Attributes:
        config: what the files did not say.
    """

    config: ImportConfig

    @staticmethod
    def of(path: Path, record: dict[str, Any]) -> "ImportedRun":
        """From what `run.json` says."""
        found = ImportedRun(path, record, ImportConfig.from_json(record["config"]))
        _ = found.facts  # which need all of it
        return found

    @property
    def data(self) -> DatasetConfig:
        """The training set."""
        return self.config.data

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, by epoch."""
        return [
            ImportedCheckpoint(epoch, self.path / CHECKPOINTS / f"epoch-{epoch:04d}")
            for epoch in self._ends
        ]

    @property
    def objective(self) -> Objective:
        """The published loss: of the noise, under the clipped cosine schedule."""
        process = process_of(make_scheduler(self._forward))
        return Objective(process, DISTANCES[self.config.loss], published)

    @property
    def making(self) -> Making:
        """How it generates."""
        return Making(make_scheduler(self._forward), self.shape, published)

    @property
    def identity(self) -> str:
        """Tells this training, its data and its events from any other."""
        config = {**self.record["config"], "data": None}
        return digest([config, [self.record[name] for name in IMPORTED_PARTS]])

    @property
    def model_facts(self) -> dict[str, str | int | float]:
        """What a reader of a report wants to know."""
        network, entries = self.record["network"], self.record["checkpoints"]
        sizes = sorted({entry["batch_size"] for entry in entries})
        return {
            "network": "U-Net of the published code, widths "
            + " ".join(map(str, network["widths"])),
            "parameters": network["parameters"],
            "events": EVENTS[self.config.events],
            "samples without an event": self.size - min(entry["events"] for entry in entries),
            "checkpoints": len(entries),
            "epochs trained": self._ends[-1],
            "batch size": ", ".join(map(str, sizes)),
            "learning rate": "not recorded, taken as constant: scores are per unit of it",
            "loss": f"{self.config.loss} on epsilon",
            "weights of generated queries": "trained",
            "schedule": f"{self._forward.schedule}, {self.timesteps} timesteps",
        }

    def shown(self, epoch: int, samples: np.ndarray) -> Shown:
        """What an event of each of some samples shows the network.

        A sample without a recorded event, which counts 0, has a drawn one.

        Raises:
            RetracError: no events of that epoch were recorded.
        """
        seen = Seen(self.dataset.tensors(samples))
        if self.config.events == "fresh":
            drawn = self.ledger.events(epoch, samples, self.shape)
            return Shown(seen, drawn.timesteps, drawn.noise)
        if epoch + 1 not in self._recorded:
            raise RetracError(f"no events of epoch {epoch} were recorded in {self.path}")
        recorded = self._recorded[epoch + 1]
        there = recorded.has(samples)
        drawn = self.ledger.events(epoch, samples[~there], self.shape)
        timesteps = torch.empty(len(samples), dtype=torch.int64)
        noise = torch.empty(len(samples), *self.shape)
        timesteps[there], noise[there] = recorded.of(samples[there])
        timesteps[~there], noise[~there] = drawn.timesteps, drawn.noise
        return Shown(seen, timesteps, noise)

    @property
    def events_known(self) -> bool:
        """Whether they are those that were recorded."""
        return self.config.events != "fresh"

    def known_epochs(self, interval: range) -> Sequence[int]:
        """Those that the published code recorded; of fresh events all."""
        if self.config.events == "fresh":
            return interval
        return [end - 1 for end in self._ends if end - 1 in interval]

    def visit_weights(self, epochs: Sequence[int]) -> np.ndarray:
        """1/B of every sample's visit in some epochs, 0 of samples without one: those of an epoch
        that was not recorded are taken to be those of the next that was."""
        ends = [self._ends[np.searchsorted(self._ends, epoch, "right")] for epoch in epochs]
        return np.stack([self._counts[end] for end in ends])

    @cached_property
    def _ends(self) -> list[int]:
        return [int(entry["epoch"]) for entry in self.record["checkpoints"]]

    @cached_property
    def _recorded(self) -> dict[int, RecordedEvents]:
        """By their checkpoint's epoch."""
        return {point.epoch: RecordedEvents.open(point.path) for point in self.checkpoints}

    @cached_property
    def _counts(self) -> dict[int, np.ndarray]:
        """What a visit of each sample counts, `[N]`, by checkpoint."""
        sizes = [int(entry["batch_size"]) for entry in self.record["checkpoints"]]
        return {
            end: events.has(np.arange(self.size)) / size
            for (end, events), size in zip(self._recorded.items(), sizes, strict=True)
        }

    @property
    def _forward(self) -> ObjectiveConfig:
        return ObjectiveConfig(self.config.timesteps, "clipped-cosine", "epsilon", self.config.loss)


def _entry(epoch: int, found: PublishedCheckpoint) -> dict[str, Any]:
    """What `run.json` says of a checkpoint."""
    return {
        "epoch": epoch,
        "file": found.file.name,
        "sha256": fingerprint(found.file),
        "batch_size": found.batch_size,
        "events": len(found.samples),
    }


def _network(found: PublishedCheckpoint, shape: tuple[int, int, int]) -> dict[str, Any]:
    """What it says of the network.

    Raises:
        RetracError: it is another architecture, or not for these images.
    """
    with _about(found.file):
        network = published_unet(found.weights)
        network.refuse_other(shape)
    return {
        "widths": list(network.widths),
        "parameters": sum(each.numel() for each in network.parameters()),
    }


@contextmanager
def _about(file: Path) -> Iterator[None]:
    """Say of which file it is that something is refused."""
    try:
        yield
    except RetracError as error:
        raise RetracError(f"{file.name}: {error}") from error


def _convert(
    found: PublishedCheckpoint, folder: Path, made: dict[str, Any], with_noise: bool
) -> None:
    """Write a checkpoint's weights and events, whole or not at all."""
    with _about(found.file), write_whole(folder) as temporary:
        temporary.mkdir()
        # Copies, for safetensors refuses those that share memory.
        weights = {name: each.to(torch.float32, copy=True) for name, each in found.weights.items()}
        save_file({name: each.contiguous() for name, each in weights.items()}, temporary / WEIGHTS)
        noise = found.noise if with_noise else None
        RecordedEvents.write(temporary, found.samples, found.timesteps, noise)
        write_json(temporary / MADE, made)
