"""The benchmark that comes with the package: a small training, and what retrained models lose.

256 handwritten digits of 8x8 pixels, a network that trains in about a minute or two, 64 random
halves with two models each, and 48 queries, half of them training images and half generated.
docs/leaderboard.md has the commands that made it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from retrac.attribution.asked import Queries
from retrac.attribution.config import AttributeConfig
from retrac.attribution.engine import Engine
from retrac.data.dataset import ImageDataset
from retrac.data.open import open_dataset
from retrac.errors import RetracError
from retrac.evaluation.baselines import baselines
from retrac.evaluation.lds import Lds
from retrac.evaluation.retraining import Retraining
from retrac.files import write_whole
from retrac.fingerprints import digest
from retrac.training.config import TrainConfig
from retrac.training.loop import train
from retrac.training.trained import TrainedRun, checkpoints_in

BENCHMARK, DEVELOPMENT = "benchmark", "development"
FILES = {BENCHMARK: "digits-8.npz", DEVELOPMENT: "digits-8-development.npz"}
"""Whatever is chosen (λ, bins, layers) is chosen on the development bank, of other digits."""


@dataclass(frozen=True, eq=False)
class Shipped:
    """A training, and the truth about it.

    Attributes:
        training: how the model is trained whose scores are asked for.
        fingerprint: of its samples.
        queries: Q images.
        subsets: bool `[S, N]`, who is in which half.
        losses: float64 `[S, R, Q]`, of the models trained on each half with each of R seeds.
        facts: how the losses were measured.
    """

    training: TrainConfig
    fingerprint: str
    queries: Queries
    subsets: np.ndarray
    losses: np.ndarray
    facts: Mapping[str, Any]

    @staticmethod
    def load(name: str = BENCHMARK) -> "Shipped":
        """A bank of this package: the benchmark, or the one on which choices are made."""
        with as_file(files("retrac.evaluation") / FILES[name]) as path:
            return Shipped.read(path)

    @staticmethod
    def read(path: Path) -> "Shipped":
        """Read what `write` wrote.

        Raises:
            RetracError: absent or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                told = json.loads(str(file["told"]))
                queries = Queries(
                    "benchmark",
                    file["images"],
                    tuple(str(name) for name in file["ids"]),
                    tuple(str(name) for name in file["labels"]),
                )
                return Shipped(
                    TrainConfig.from_json(told["training"]),
                    told["fingerprint"],
                    queries,
                    file["subsets"],
                    file["losses"],
                    told["facts"],
                )
        except (OSError, KeyError, ValueError) as error:
            raise RetracError(f"{path} is no benchmark, or damaged ({error})") from error

    @staticmethod
    def of(retraining: Retraining) -> "Shipped":
        """What `retrac lds prepare` has measured.

        Raises:
            RetracError: not all of it yet.
        """
        losses, run = retraining.losses(), retraining.run
        if np.isnan(losses).any():
            raise RetracError(f"{retraining.path} is not finished: let `retrac lds prepare` go on")
        return Shipped(
            run.config,
            run.dataset.fingerprint,
            retraining.queries,
            retraining.subsets,
            losses,
            asdict(retraining.config),
        )

    def write(self, path: Path) -> None:
        """Write one file, whole or not at all."""
        told = {
            "training": self.training.to_json(),
            "fingerprint": self.fingerprint,
            "facts": dict(self.facts),
        }
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                told=json.dumps(told),
                images=self.queries.images,
                ids=self.queries.ids,
                labels=self.queries.labels,
                subsets=self.subsets,
                losses=self.losses,
            )

    def dataset(self) -> ImageDataset:
        """The benchmark's samples.

        Raises:
            RetracError: they are not those that it was made with.
        """
        dataset = open_dataset(self.training.data)
        if dataset.fingerprint != self.fingerprint:
            raise RetracError(
                f"the benchmark's images ({self.training.data.dataset}) are not those that it was "
                "made with: another version of the library that they come from"
            )
        return dataset

    def is_trained(self, path: Path) -> bool:
        """Whether the benchmark's model is there, and finished."""
        return any(found.epoch == self.training.epochs for found in checkpoints_in(path))

    def trained(self, path: Path) -> TrainedRun:
        """The benchmark's model: trained now, or gone on with, or opened where it is finished.

        Raises:
            RetracError: another run is there, or the dataset has changed.
        """
        return train(self.training, path, dataset=self.dataset())

    def place(self, run: TrainedRun, way: AttributeConfig) -> Path:
        """Folder of the scores of the benchmark's queries, one for every way of scoring."""
        settings = Engine.of(run, way).settings_for(self.queries)
        return run.path / "attributions" / f"{self.queries.name}-{digest(settings)[:8]}"

    def with_baselines(self, run: TrainedRun) -> Lds:
        """The metric, with what a method has to beat."""
        metric = Lds(self.subsets, self.losses)
        for name, scores in baselines(run, self.queries).items():
            metric.update(name, scores)
        return metric

    @property
    def kinds(self) -> dict[str, np.ndarray]:
        """Rows of the queries by kind: training images, and generated ones."""
        made = np.array([name.startswith("generated/") for name in self.queries.ids])
        return {"training images": np.flatnonzero(~made), "generated": np.flatnonzero(made)}


def read_scores(path: Path, shipped: Shipped) -> np.ndarray:
    """Read another method's scores for the benchmark's queries.

    Raises:
        RetracError: no file of `[Q, N]` finite numbers.
    """
    asked = len(shipped.queries), shipped.subsets.shape[1]
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy and zipfile each have their own
        raise RetracError(f"{path} cannot be read as an .npy file of numbers ({error})") from error
    if not isinstance(values, np.ndarray) or values.shape != asked:
        found = getattr(values, "shape", "no array")
        raise RetracError(f"{path} holds {found}, not {asked}: queries by training samples")
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise RetracError(f"{path} holds something other than finite numbers")
    return values
