"""A model that was trained elsewhere: in a loop that asked a ledger for its events, which are then
replayed, or in one whose events nobody knows, and some are sampled."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from retrac.data.config import DatasetConfig
from retrac.data.open import open_dataset
from retrac.diffusion.calls import Conditions, call_of
from retrac.diffusion.loss import DISTANCES, Objective
from retrac.diffusion.model import load_network
from retrac.diffusion.pipelines import Pipeline, fingerprint, weights_in
from retrac.diffusion.process import min_snr
from retrac.diffusion.sampling import Making
from retrac.diffusion.schedule import process_of
from retrac.diffusion.shown import Seen, Shown
from retrac.errors import RetracError
from retrac.files import read_json, write_json
from retrac.training.config import AdoptConfig
from retrac.training.ledger import Ledger
from retrac.training.run import RUN, Checkpoint, Run, made_with
from retrac.training.sources import Latents, Pixels, Source

ADOPTED = "adopted"
ADOPTED_PARTS = ("weights", "parts", "labels", "dataset", "ledger")
"""What the record has that tells a model, its data and its events from others."""
SAMPLED = "sampled, not those of training: scores are expectations over events, not a replay"
REPLAYED = "those of the training, drawn by a ledger"


def adopt(config: AdoptConfig, output: str | Path) -> "AdoptedRun":
    """Make a run folder for a trained model; nothing is copied, and nothing of it is changed.

    Args:
        config: the model, its data and its loss.
        output: the run folder; one of the same settings is opened.

    Raises:
        RetracError: no such pipeline or dataset, a network or scheduler that is not known here, or
            another run in `output`.
    """
    path, config = Path(output), config.located()
    dataset = open_dataset(config.data)
    pipeline = Pipeline.open(config.pipeline)
    timesteps = process_of(pipeline.scheduler).timesteps
    ledger = Ledger(config.seed, len(dataset), timesteps)
    weights = config.weights or (config.pipeline,)
    record = {
        "kind": ADOPTED,
        "config": config.to_json(),
        "weights": [fingerprint(pipeline.weights(folder)) for folder in weights],
        "parts": _parts(pipeline),
        "labels": digest_of(list(dataset.labels or ())),
        **made_with(dataset, ledger),
    }
    found = AdoptedRun.of(path, record)
    found.refuse_unfit()
    if (path / RUN).is_file():
        earlier = read_json(path / RUN)
        if {**earlier, "versions": None} != {**record, "versions": None}:
            raise RetracError(f"{path} holds another run; choose another --output")
    elif path.exists() and any(path.iterdir()):
        raise RetracError(f"{path} exists and is not a run; choose another --output")
    else:
        write_json(path / RUN, record)
    return found


@dataclass(frozen=True)
class AdoptedCheckpoint(Checkpoint):
    """Weights somewhere in diffusers' layout; `epoch` counts the events that stand before it.

    Attributes:
        pipeline: to which they belong.
    """

    pipeline: Pipeline = field(kw_only=True)

    def load(self, shape: tuple[int, int, int]) -> nn.Module:
        """Load the network, on the CPU, in evaluation mode.

        Raises:
            RetracError: absent or damaged.
        """
        return self.pipeline.load(self.path)

    def load_for_generation(self, shape: tuple[int, int, int]) -> nn.Module:
        """The same: what was trained is what generates."""
        return self.load(shape)


@dataclass(frozen=True)
class AdoptedRun(Run):
    """A run of `retrac adopt`.

    Its events are those of a ledger that training asked, or sampled ones, others for every
    checkpoint.

    Attributes:
        config: the model, its data and its loss.
    """

    config: AdoptConfig

    @staticmethod
    def of(path: Path, record: dict[str, Any]) -> "AdoptedRun":
        """From what `run.json` says."""
        found = AdoptedRun(path, record, AdoptConfig.from_json(record["config"]))
        if len(record["weights"]) != max(1, len(found.config.weights)):
            raise ValueError(f"{len(record['weights'])} fingerprints of weights")
        if missing := {*ADOPTED_PARTS} - record.keys():
            raise KeyError(*missing)
        return found

    def refuse_unfit(self) -> None:
        """Refuse a model that these samples cannot have trained.

        Raises:
            RetracError: other channels, classes that samples lack, or more than it has.
        """
        pipeline, folder = self.pipeline, self.pipeline.encoder
        of_images = pipeline.config if folder is None else read_json(folder / "config.json")
        channels = of_images.get("in_channels")
        if channels != self.shape[0]:
            raise RetracError(
                f"the model in {self.config.pipeline} is for {channels} channels, but the images "
                f"have {self.shape[0]}"
            )
        size, seen = pipeline.config.get("sample_size"), self.source.shape
        sides = (size, size) if isinstance(size, int) else tuple(size or seen[1:])
        if sides != seen[1:] or pipeline.config.get("in_channels") != seen[0]:
            raise RetracError(
                f"the model in {self.config.pipeline} sees {pipeline.config.get('in_channels')} "
                f"channels of {sides[0]}x{sides[1]}, but these images give {seen[0]} of "
                f"{seen[1]}x{seen[2]}: give another --resolution"
            )
        if pipeline.family == "UNet2DModel" and pipeline.config.get("out_channels") != seen[0]:
            raise RetracError(
                f"the model in {self.config.pipeline} predicts variances, too, which is not known "
                "of U-Nets here"
            )
        if pipeline.config.get("class_embed_type") is not None:
            raise RetracError(
                f"the model in {self.config.pipeline} embeds classes by "
                f"{pipeline.config['class_embed_type']!r}, which is not known here"
            )
        if process_of(pipeline.scheduler).prediction == "velocity":
            raise RetracError(
                f"the model in {self.config.pipeline} is of flow matching, which cannot be adopted "
                "yet"
            )
        if self.config.classes and pipeline.classes is None:
            raise RetracError(f"--classes: the model in {self.config.pipeline} is told none")
        if self.config.drop and pipeline.no_class is None:
            raise RetracError(
                f"--drop {self.config.drop:g}: the model in {self.config.pipeline} has no class "
                "that stands for none"
            )
        if self.pipeline.classes is not None:
            self._classes(self.dataset.labels or ("",) * self.size)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The model's folder."""
        return Pipeline.open(self.config.pipeline)

    @property
    def data(self) -> DatasetConfig:
        """The training set."""
        return self.config.data

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The given weights, in the given order.

        Raises:
            RetracError: they have changed since they were adopted.
        """
        folders = self.config.weights or (self.config.pipeline,)
        for folder, known in zip(folders, self.record["weights"], strict=True):
            if fingerprint(self.pipeline.weights(folder)) != known:
                raise RetracError(
                    f"the weights in {folder} have changed since {self.path} was made: adopt them "
                    "again, into another folder"
                )
        for name, known in _parts(self.pipeline).items():
            if self.record["parts"].get(name) != known:
                raise RetracError(
                    f"the {name} of {self.config.pipeline} has changed since {self.path} was made: "
                    "adopt it again, into another folder"
                )
        if digest_of(list(self.dataset.labels or ())) != self.record["labels"]:
            raise RetracError(
                f"the labels of {self.dataset.name!r} have changed since {self.path} was made: "
                "adopt the model again, into another folder"
            )
        return [
            AdoptedCheckpoint(epoch, folder, pipeline=self.pipeline)
            for epoch, folder in zip(self._epochs, folders, strict=True)
        ]

    @property
    def objective(self) -> Objective:
        """The loss that it is said to be trained with."""
        process = process_of(self.pipeline.scheduler)
        if self.config.weighting == "min-snr":
            process = process.weighted(min_snr(process))
        return Objective(process, DISTANCES[self.config.loss], call_of(self.pipeline.family))

    @property
    def making(self) -> Making:
        """How it generates, without guidance."""
        return Making(
            self.pipeline.scheduler,
            self.source.shape,
            call_of(self.pipeline.family),
            lambda indices: self.conditions(self.generated_labels(indices)),
            self.source.decode,
        )

    @cached_property
    def source(self) -> Source:
        """What the network sees of the samples."""
        folder = self.pipeline.encoder
        if folder is None:
            return Pixels(self.dataset)
        config = read_json(folder / "config.json")
        return Latents(self.dataset, lambda: load_network(folder, "AutoencoderKL"), config)

    @property
    def identity(self) -> str:
        """Tells this model, its data and its sampled events from any other."""
        config = {**self.record["config"], "pipeline": None, "weights": None, "data": None}
        decided = [self.record[name] for name in ADOPTED_PARTS]
        return digest_of([config, decided])

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What a reader of a report wants to know."""
        return {
            "run": self.path.name,
            "pipeline": self.config.pipeline.name,
            "network": self.pipeline.family,
            "events": REPLAYED if self.config.epochs else SAMPLED,
            "dataset": self.record["dataset"]["name"],
            "samples": self.size,
            "image": "×".join(map(str, self.shape[1:])) + f", {self.shape[0]} channels",
            "dataset fingerprint": self.record["dataset"]["fingerprint"][:16],
            "checkpoints": len(self.record["weights"]),
            "epochs trained": self._epochs[-1],
            "loss": f"{self.config.loss} on {self.objective.process.prediction}, weighting "
            f"{self.config.weighting}",
            "schedule": f"{type(self.pipeline.scheduler).__name__}, {self.timesteps} timesteps",
            "seed": self.config.seed,
        }

    def shown(self, epoch: int, samples: np.ndarray) -> Shown:
        """What an event of each of some samples shows the network."""
        ledger, source = self.ledger, self.source
        events = ledger.events(epoch, samples, source.shape)
        mirrored = events.flips & self.config.flip
        labels = self.dataset.labels or ("",) * self.size
        conditions = dict(self.conditions([labels[index] for index in samples]))
        if (nothing := self.pipeline.no_class) is not None and self.config.drop:
            dropped = ledger.dropped(epoch, samples, self.config.drop)
            conditions["class_labels"] = conditions["class_labels"].masked_fill(dropped, nothing)
        clean = source.clean(ledger, epoch, samples, mirrored)
        return Shown(Seen(clean, conditions), events.timesteps, events.noise)

    def seen(self, images: np.ndarray, labels: Sequence[str]) -> Seen:
        """Images as the network sees them; of latents the means.

        Raises:
            RetracError: as `conditions`.
        """
        pixels = super().seen(images, labels)
        return Seen(self.source.of(pixels.clean), pixels.conditions)

    def visit_weights(self, epochs: Sequence[int]) -> np.ndarray:
        """All events count alike: each 1, or where they are sampled all of a checkpoint 1."""
        each = 1.0 if self.config.epochs else 1 / self.config.events
        return np.full((len(epochs), self.size), each)

    @property
    def example(self) -> Seen:
        """One sample as the network sees it, of any numbers: for its size."""
        return Seen(torch.zeros(1, *self.source.shape), self.conditions([*self._known][:1]))

    def conditions(self, labels: Sequence[str]) -> Conditions:
        """The classes of images with these labels, of a network that is told them.

        Raises:
            RetracError: an image without a label, or with one that no sample has.
        """
        if self.pipeline.classes is None:
            return {}
        return {"class_labels": torch.tensor(self._classes(labels))}

    def generated_labels(self, indices: Sequence[int]) -> tuple[str, ...]:
        """One class after the other, of a network that is told them."""
        if self.pipeline.classes is None:
            return ("",) * len(indices)
        names = [*self._known]
        return tuple(names[index % len(names)] for index in indices)

    @property
    def _epochs(self) -> tuple[int, ...]:
        sampled = (self.config.events * (place + 1) for place in range(len(self.record["weights"])))
        return self.config.epochs or tuple(sampled)

    def _classes(self, labels: Sequence[str]) -> list[int]:
        """The network's number of each label: its place among `--classes`, or among all labels in
        order, as `datasets` numbers folders of images."""
        there, count = self._known, self.pipeline.classes or 0
        if len(there) != count:
            raise RetracError(
                f"the model in {self.config.pipeline} has {count} classes, but there are "
                f"{len(there)} labels: give the label of each by --classes, in order"
            )
        for label in labels:
            if label not in there:
                what = f"the label {label!r}, which is of no class" if label else "no label"
                raise RetracError(
                    f"the model in {self.config.pipeline} is told an image's class, and an image "
                    f"has {what}"
                )
        return [there[label] for label in labels]

    @cached_property
    def _known(self) -> dict[str, int]:
        found = {*(self.dataset.labels or ())} - {""}
        numbered = all(name.isdecimal() for name in found)
        names = self.config.classes or sorted(found, key=int if numbered else str)
        return {name: place for place, name in enumerate(names)}


def _parts(pipeline: Pipeline) -> dict[str, str]:
    """Fingerprints of all that decides losses beside the network's weights."""
    found = {
        "network's configuration": _settings(pipeline.config),
        "scheduler": _settings(read_json(pipeline.path / "scheduler" / "scheduler_config.json")),
    }
    if (folder := pipeline.encoder) is not None:
        found["encoder"] = fingerprint(weights_in(folder))
        found["encoder's configuration"] = _settings(read_json(folder / "config.json"))
    return found


def _settings(config: dict[str, Any]) -> str:
    """A fingerprint of a configuration, but for where it was saved, and by which version."""
    told = {name: value for name, value in config.items() if not name.startswith("_")}
    return digest_of([config.get("_class_name"), told])


def digest_of(content: Any) -> str:
    """A fingerprint of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
