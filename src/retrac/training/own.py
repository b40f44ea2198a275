"""Any module of yours, with any loss per sample: two functions make it a run."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrac.data.config import DatasetConfig
from retrac.data.open import open_dataset
from retrac.diffusion.calls import Conditions
from retrac.diffusion.loss import precision_of
from retrac.diffusion.measurements import Measurement, refuse_all_but_the_loss
from retrac.diffusion.sampling import Making
from retrac.diffusion.shown import Seen, Shown
from retrac.errors import RetracError
from retrac.fingerprints import digest, fingerprint
from retrac.training.ledger import Ledger
from retrac.training.run import Checkpoint, Run, made_with
from retrac.training.sources import Encode, Encoded, Pixels, Source
from retrac.training.visits import Visits

OWN = "own"
PARTS = ("weights", "functions", "labels", "dataset", "ledger", "visits")
"""What the record has that tells a model, its data and its events from others."""

Load = Callable[[Path], nn.Module]
Losses = Callable[[nn.Module, Seen, Tensor, Tensor], Tensor]


def adopt_module(
    output: str | Path,
    *,
    load: Load,
    losses: Losses,
    weights: Sequence[str | Path],
    data: DatasetConfig,
    timesteps: int = 1000,
    epochs: Sequence[int] = (),
    events: int = 64,
    learning_rates: Sequence[float] = (),
    flip: bool = False,
    seed: int = 0,
    encode: Encode | None = None,
    conditions: Callable[[Sequence[str]], Conditions] = lambda labels: {},
    version: str = "",
) -> "OwnRun":
    """Make a run of any module, to be asked like any other; only code can open it again.

    Args:
        output: the run folder; one of the same settings is opened.
        load: gives the network with the weights at a path; parameters that it leaves trainable
            are those that count, unless others are asked for.
        losses: `(network, seen, timesteps [B], noise [B, C, H, W]) -> [B]`, of B samples whose
            pixels `seen.clean [B, C, H, W]` are in [-1, 1].
        weights: files or folders with weights at several moments of the training, in order.
        data: the samples.
        timesteps: T.
        epochs: whole epochs before each of the weights, of a training whose events a `Ledger` of
            this seed drew: they are replayed. Else events are sampled.
        events: that are sampled for each sample and checkpoint.
        learning_rates: of the training before each of the weights, on average; all alike by
            default.
        flip: whether training mirrored images where the ledger said so.
        seed: of the ledger.
        encode: gives what the network sees of images `[B, C, H, W]` in [-1, 1], such as the means
            of their latents, `[B, …]` of three axes more; `seen.clean` is that, then, and noise has
            its shape. It is called without gradients, of samples in another thread.
        conditions: gives what else `losses` finds in `seen.conditions`, by name `[B, …]`, from
            B labels.
        version: a text of yours that changes when what these functions do changes. Their own
            source is looked at, too, but not what they call.

    Raises:
        RetracError: numbers that make no sense, functions whose values from outside are not known
            without a version, no such weights or dataset, or another run in `output`.
    """
    data, paths = data.located(), tuple(Path(path).expanduser().resolve() for path in weights)
    if not paths or timesteps < 1 or events < 1:
        raise RetracError("a module needs weights, and at least one timestep and one event")
    if not 0 <= seed < 2**63:
        raise RetracError(f"the seed must be from 0 to 2^63 - 1, not {seed}")
    visits = Visits.of(epochs, events, learning_rates, len(paths))
    dataset = open_dataset(data)
    functions = [each for each in (load, losses, conditions, encode) if each is not None]
    record = {
        "kind": OWN,
        "weights": [fingerprint(*_files(path)) for path in paths],
        "functions": digest([version, *(_source(each, version) for each in functions)]),
        "labels": digest([list(dataset.labels or ()), list(dataset.classes or ())]),
        "visits": [list(visits.epochs), events, list(visits.rates), flip],
        **made_with(dataset, Ledger(seed, len(dataset), timesteps)),
    }
    run = OwnRun(
        Path(output),
        record,
        config=data,
        folders=paths,
        visits=visits,
        flip=flip,
        load=load,
        own_losses=losses,
        own_encode=encode,
        own_conditions=conditions,
    )
    run.save()
    return run


@dataclass(frozen=True)
class OwnCheckpoint(Checkpoint):
    """Weights that your function loads; `epoch` counts the events that stand before them."""

    own: Load = field(kw_only=True)

    def load(self, shape: tuple[int, int, int]) -> Any:
        """The network, in evaluation mode."""
        return self.own(self.path).eval()


@dataclass(frozen=True)
class OwnLoss:
    """Your loss, as a run's objective."""

    own: Losses

    def losses(self, model: Any, seen: Seen, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Losses `[B]`.

        Raises:
            RetracError: a region of the images is asked for, which your function would not know.
        """
        if seen.counted is not None:
            raise RetracError(
                "a module of your own has a loss of whole images: leave out the mask of queries"
            )
        precision = precision_of(model, noise)
        return self.own(model, seen.at(precision), timesteps, noise.to(precision))

    @property
    def gives_output(self) -> bool:
        """No: what the module gives is known to your function only."""
        return False

    def measure(
        self,
        model: Any,
        seen: Seen,
        timesteps: Tensor,
        noise: Tensor,
        measurements: Sequence[Measurement],
    ) -> tuple[Tensor, ...]:
        """The losses alone, `[B]`.

        Raises:
            RetracError: as `losses`, or something else is to be measured.
        """
        refuse_all_but_the_loss(measurements, "a module of your own")
        return (self.losses(model, seen, timesteps, noise),)


@dataclass(frozen=True, kw_only=True)
class OwnRun(Run):
    """A run of `adopt_module`."""

    config: DatasetConfig
    folders: tuple[Path, ...]
    visits: Visits
    flip: bool
    load: Load
    own_losses: Losses
    own_encode: Encode | None
    own_conditions: Callable[[Sequence[str]], Conditions]

    @property
    def data(self) -> DatasetConfig:
        """The training set."""
        return self.config

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The given weights, in the given order."""
        return [
            OwnCheckpoint(epoch, path, own=self.load)
            for epoch, path in zip(self.visits.ends, self.folders, strict=True)
        ]

    @property
    def objective(self) -> OwnLoss:
        """Your loss."""
        return OwnLoss(self.own_losses)

    @property
    def making(self) -> Making:
        """Not known.

        Raises:
            RetracError: always.
        """
        raise RetracError(
            "how a module of your own generates is not known here: give its images as files"
        )

    @property
    def identity(self) -> str:
        """Tells this model, its data and its events from any other."""
        return digest([self.record[name] for name in PARTS])

    @property
    def model_facts(self) -> dict[str, str | int | float]:
        """What a reader of a report wants to know."""
        return {
            "network": "your own",
            "events": self.visits.told,
            "checkpoints": len(self.folders),
            "timesteps": self.timesteps,
        }

    @cached_property
    def trained(self) -> str:
        """The parameters that your function leaves trainable.

        Raises:
            RetracError: there are none.
        """
        parameters = dict(self.checkpoints[0].load(self.shape).named_parameters())
        names = [name for name, parameter in parameters.items() if parameter.requires_grad]
        if not names:
            raise RetracError("`load` leaves no parameter trainable: score some by --parameters")
        return ".*" if len(names) == len(parameters) else f"^({'|'.join(map(re.escape, names))})$"

    def shown(self, epoch: int, samples: np.ndarray) -> Shown:
        """What an event of each of some samples shows the network."""
        events = self.ledger.events(epoch, samples, self.source.shape)
        clean = self.source.clean(self.ledger, epoch, samples, events.flips & self.flip)
        conditions = self.conditions([self.labels[index] for index in samples])
        return Shown(Seen(clean, conditions), events.timesteps, events.noise)

    def seen(self, images: np.ndarray, labels: Sequence[str]) -> Seen:
        """Images as the network sees them."""
        pixels = super().seen(images, labels)
        return Seen(self.source.of(pixels.clean), pixels.conditions)

    @cached_property
    def source(self) -> Source:
        """What the network sees of the samples."""
        encode = self.own_encode
        return Pixels(self.dataset) if encode is None else Encoded(self.dataset, encode)

    @property
    def events_known(self) -> bool:
        """Whether training drew its events from the ledger."""
        return bool(self.visits.epochs)

    def visit_weights(self, epochs: Sequence[int]) -> np.ndarray:
        """What events count: those of all samples alike."""
        return self.visits.weights(epochs, self.size)

    def conditions(self, labels: Sequence[str]) -> Conditions:
        """What your function makes of labels."""
        return self.own_conditions(labels)

    @property
    def told(self) -> bool:
        """Whether it makes anything of them."""
        return bool(self.conditions(self.labels[:1]))

    @property
    def example(self) -> Seen:
        """A sample, for its size."""
        return Seen(torch.zeros(1, *self.source.shape), self.conditions(self.labels[:1]))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file())
    if not found:
        raise RetracError(f"{path} holds no weights: it is no file, and no folder with any")
    return found


def _source(function: Callable[..., Any], version: str) -> str:
    """What a function says: scores of another one are not taken for its.

    Raises:
        RetracError: it cannot be found, or uses values from outside, and there is no version.
    """
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = ""
    if not version and (not source or getattr(function, "__closure__", None)):
        raise RetracError(
            f"{function} uses values that its source does not show: give a `version`, a text that "
            "changes when they do"
        )
    return source
