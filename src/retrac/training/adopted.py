"""A model that was trained elsewhere: in a loop that asked a ledger for its events, which are then
replayed, or in one whose events nobody knows, and some are sampled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from retrac.data.config import DatasetConfig
from retrac.data.open import open_dataset
from retrac.diffusion.calls import Conditions, call_of
from retrac.diffusion.configs import read_config
from retrac.diffusion.density import drawn_as
from retrac.diffusion.lora import LORA_PARAMETERS
from retrac.diffusion.loss import DISTANCES, Objective
from retrac.diffusion.model import load_network
from retrac.diffusion.pipelines import Pipeline
from retrac.diffusion.process import Process, cosine_map, inverse_square, min_snr, snr
from retrac.diffusion.sampling import BATCH, Making
from retrac.diffusion.schedule import process_of
from retrac.diffusion.shown import Seen, Shown
from retrac.diffusion.texts import TOKENS
from retrac.diffusion.weights import weights_in
from retrac.errors import RetracError
from retrac.fingerprints import digest
from retrac.training.adopting import fingerprints, refuse_changed, refuse_unfit
from retrac.training.conditioning import LABEL, Captions, Conditioning, Untold, numbered
from retrac.training.config import AdoptConfig
from retrac.training.ledger import Ledger
from retrac.training.run import Checkpoint, Run, made_with
from retrac.training.sources import Latents, Pixels, Source
from retrac.training.visits import Visits

ADOPTED = "adopted"
ADOPTED_PARTS = ("weights", "parts", "labels", "dataset", "ledger")
"""What the record has that tells a model, its data and its events from others."""
WEIGHTS: Mapping[str, Callable[[Process], torch.Tensor] | None] = {
    "none": None,
    "snr": snr,
    "min-snr": min_snr,
    "inverse-square": inverse_square,
    "cosine-map": cosine_map,
}


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
    pipeline = Pipeline.open(config.pipeline)
    dataset = open_dataset(config.data, pipeline.resolution)
    config = replace(config, data=replace(config.data, resolution=dataset.shape[1]))
    timesteps = process_of(pipeline.scheduler).timesteps
    ledger = Ledger(config.seed, len(dataset), timesteps)
    weights = config.weights or (config.pipeline,)
    record = {
        "kind": ADOPTED,
        "config": config.to_json(),
        **fingerprints(pipeline, weights, dataset),
        **made_with(dataset, ledger),
    }
    found = AdoptedRun.of(path, record)
    found.refuse_unfit()
    found.save()
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
            RetracError: as `refuse_unfit`, or samples lack what the model is told.
        """
        refuse_unfit(self.config, self.pipeline, self.shape, self.source.shape)
        if self.pipeline.told_text and self.dataset.labels is None and LABEL in self.config.caption:
            raise RetracError(
                f"the model in {self.config.pipeline} is told texts, and {self.dataset.name!r} has "
                "none: give the same to all samples by --caption, or the column of a hub dataset "
                "by --label-column"
            )
        _ = self.conditioning

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
            RetracError: they have changed since they were adopted, or what goes with them.
        """
        refuse_changed(self.record, self.path, self.pipeline, self._folders, self.dataset)
        return [
            AdoptedCheckpoint(epoch, folder, pipeline=self.pipeline)
            for epoch, folder in zip(self.visits.ends, self._folders, strict=True)
        ]

    @property
    def visits(self) -> Visits:
        """Which events stand before each checkpoint."""
        return self.config.visits

    @property
    def objective(self) -> Objective:
        """The loss that it is said to be trained with."""
        process = process_of(self.pipeline.scheduler)
        if (weight := WEIGHTS[self.config.weighting]) is not None:
            process = process.weighted(weight(process))
        if self.config.preconditioned:
            power = 2 if self.config.loss == "mse" else 1
            process = process.weighted(process.weight * process.spread.pow(power))
        return Objective(process, DISTANCES[self.config.loss], call_of(self.pipeline.family))

    @property
    def making(self) -> Making:
        """How it generates."""
        return Making(
            self.pipeline.scheduler,
            self.source.shape,
            call_of(self.pipeline.family),
            self.conditioning.of,
            self.conditioning.nothing,
            self.source.decode,
            BATCH if self.pipeline.encoder is None else 1,
        )

    @property
    def told(self) -> bool:
        """Whether its network is told classes or texts."""
        return self.pipeline.told_text or self.pipeline.classes is not None

    @property
    def trained(self) -> str:
        """All parameters, or those of a LoRA."""
        return LORA_PARAMETERS if self.pipeline.is_lora(self._folders[0]) else super().trained

    def encode_on(self, device: torch.device) -> None:
        """Let encoders of images and texts work on a device."""
        for encoder in (self.source, self.conditioning):
            if isinstance(encoder, Latents | Captions):
                encoder.device = device

    @cached_property
    def source(self) -> Source:
        """What the network sees of the samples."""
        folder = self.pipeline.encoder
        if folder is None:
            return Pixels(self.dataset)
        config, variant = read_config(folder), weights_in(folder).variant
        return Latents(self.dataset, lambda: load_network(folder, "AutoencoderKL", variant), config)

    @cached_property
    def conditioning(self) -> Conditioning:
        """What the network is told of the samples."""
        pipeline, config, labels = self.pipeline, self.config, self.labels
        if pipeline.told_text:
            tokens = config.text_tokens or TOKENS.get(pipeline.kind, 0)
            return Captions(
                pipeline.for_texts, config.caption, labels, self.shape[1:], tokens, config.guidance
            )
        if pipeline.classes is not None:
            return numbered(
                str(config.pipeline),
                labels,
                config.classes,
                pipeline.class_numbers,
                self.dataset.classes,
                pipeline.classes,
                pipeline.no_class,
            )
        return Untold()

    @property
    def identity(self) -> str:
        """Tells this model, its data and its sampled events from any other."""
        config = {**self.record["config"], "pipeline": None, "weights": None, "data": None}
        decided = [self.record[name] for name in ADOPTED_PARTS]
        return digest(config, decided)

    @property
    def model_facts(self) -> dict[str, str | int | float]:
        """What a reader of a report wants to know."""
        return {
            "pipeline": self.config.pipeline.name,
            "network": self.pipeline.family,
            "the network sees": "×".join(map(str, self.source.shape)),
            "it is told": self.conditioning.told,
            "events": self.visits.told,
            "checkpoints": len(self.record["weights"]),
            "epochs trained": self.visits.ends[-1],
            "loss": f"{self.config.loss} on {self.objective.process.prediction}, weighting "
            f"{self.config.weighting}",
            "schedule": f"{type(self.pipeline.scheduler).__name__}, {self.timesteps} timesteps",
        }

    def shown(self, epoch: int, samples: np.ndarray) -> Shown:
        """What an event of each of some samples shows the network."""
        ledger, source = self.ledger, self.source
        events = ledger.events(epoch, samples, source.shape)
        conditions = self.conditions([self.labels[index] for index in samples])
        if self.config.drop and self.conditioning.dropped is not None:
            nothing = self.conditioning.dropped(len(samples))
            dropped = ledger.dropped(epoch, samples, self.config.drop)
            conditions = {
                name: torch.where(dropped.view(-1, *(1,) * (value.dim() - 1)), nothing[name], value)
                for name, value in conditions.items()
            }
        clean = source.clean(ledger, epoch, samples, events.flips & self.config.flip)
        timesteps = drawn_as(self.config.density, self.timesteps)[events.timesteps]
        return Shown(Seen(clean, conditions), timesteps, events.noise)

    def seen(self, images: np.ndarray, labels: Sequence[str]) -> Seen:
        """Images as the network sees them; of latents the means.

        Raises:
            RetracError: as `conditions`.
        """
        pixels = super().seen(images, labels)
        return Seen(self.source.of(pixels.clean), pixels.conditions)

    @property
    def events_known(self) -> bool:
        """Whether training drew its events from the ledger."""
        return bool(self.visits.epochs)

    def visit_weights(self, epochs: Sequence[int]) -> np.ndarray:
        """What events count: those of all samples alike."""
        return self.visits.weights(epochs, self.size)

    @property
    def example(self) -> Seen:
        """One sample as the network sees it, of any numbers: for its size."""
        return Seen(torch.zeros(1, *self.source.shape), self.conditions(self.generated_labels([0])))

    def conditions(self, labels: Sequence[str]) -> Conditions:
        """What the network is told of images with these labels.

        Raises:
            RetracError: an image without a label that it needs, or with one that no sample has.
        """
        return self.conditioning.of(labels)

    def generated_labels(self, indices: Sequence[int]) -> tuple[str, ...]:
        """One label of the samples after the other, of a network that is told them."""
        names = self.conditioning.labels
        return tuple(names[index % len(names)] for index in indices)

    @property
    def _folders(self) -> tuple[Path, ...]:
        return self.config.weights or (self.config.pipeline,)
