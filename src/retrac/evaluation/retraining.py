"""Training again on parts of the data: the truth that attribution claims to foretell."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrac.attribution.asked import Queries
from retrac.attribution.losses import mean_losses
from retrac.attribution.plan import Plan
from retrac.data.dataset import ImageDataset
from retrac.diffusion.device import choose_device
from retrac.errors import RetracError
from retrac.estimate import Estimate, seconds_of
from retrac.evaluation.config import RetrainingConfig
from retrac.evaluation.lds import Lds
from retrac.evaluation.losses import last_losses, measuring_plan
from retrac.evaluation.subsets import random_subsets
from retrac.files import PARTIAL, read_json, remove, write_json, write_whole
from retrac.fingerprints import digest
from retrac.training.config import TrainConfig
from retrac.training.estimate import estimate_training
from retrac.training.loop import first_weights, train
from retrac.training.trained import TrainedRun

DESIGN = "design.json"
ASKED = "queries.npz"
FEWEST = 8
"""Subsets over which a correlation is worth telling."""


@dataclass(frozen=True)
class Model:
    """One model to be trained again."""

    number: int
    subset: int
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"subset-{self.subset:04d}-seed-{self.seed}"


@dataclass(frozen=True, eq=False)
class Retraining:
    """A folder of retrained models' losses.

    Attributes:
        path: the folder.
        run: whose training is repeated.
        queries: on which losses are measured.
        config: how.
    """

    path: Path
    run: TrainedRun
    queries: Queries
    config: RetrainingConfig

    @staticmethod
    def planned(
        run: TrainedRun, queries: Queries, config: RetrainingConfig, path: Path
    ) -> "Retraining":
        """What a folder will hold, or goes on with; nothing is written.

        Raises:
            RetracError: it holds something else, the training set is too small, or regions or
                trajectories are asked.
        """
        if len(run.dataset) < 2:
            raise RetracError("a training set of one sample has no parts to train on")
        if queries.journey is not None or queries.masks is not None:
            raise RetracError(
                "losses are measured on whole images: leave out --query-mask, and ask for "
                "generated:N in place of trajectory:N"
            )
        found = Retraining(path, run, queries, config)
        if (path / DESIGN).is_file():
            there = read_json(path / DESIGN)
            for name, value in found.design.items():
                if there.get(name) != value:
                    raise RetracError(
                        f"{path} was begun with another {name} ({there.get(name)}, now {value}): "
                        "choose another --output"
                    )
        elif path.exists() and not all(_leftover(each) for each in path.iterdir()):
            raise RetracError(f"{path} holds something else; choose another --output")
        return found

    def begin(self, part: tuple[int, int] = (1, 1)) -> None:
        """Write what is asked, and how, unless it is there; clear up what a stopped part left."""
        for model in self._of_part(part):
            if self._losses(model).is_file():  # stopped just before its weights went
                remove(self._training(model)[1])
        if (self.path / DESIGN).is_file():
            return
        asked = self.queries
        try:
            with write_whole(self.path / ASKED) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, images=asked.images, ids=asked.ids, labels=asked.labels)
            write_json(self.path / DESIGN, self.design)
        except FileNotFoundError:  # another device, which writes the same, was first
            if not (self.path / ASKED).is_file():
                raise

    def estimate(self, part: tuple[int, int] = (1, 1)) -> Estimate | None:
        """What a part's missing models will need; None where none is, or each is soon trained."""
        missing = self.missing(part)
        if not missing:
            return None
        config, folder, dataset = self._training(missing[0])
        one = estimate_training(config, dataset, folder, None)
        if one is None:
            return None
        network = first_weights(config, dataset.shape).to(choose_device())
        query = self.queries.take([0]).asked(self.run, self.plan)
        looked = seconds_of(lambda: mean_losses(network, self.run.objective, self.plan, query))
        seconds = len(missing) * (one.seconds + len(self.queries) * looked)
        return replace(one, seconds=seconds)  # each model goes before the next comes

    @staticmethod
    def open(run: TrainedRun, path: Path) -> "Retraining":
        """Open a folder.

        Raises:
            RetracError: absent, damaged, or of another run.
        """
        if not (path / DESIGN).is_file():
            raise RetracError(
                f"{path} holds no retrained models: make them with `retrac lds prepare`"
            )
        there = read_json(path / DESIGN)
        try:
            config = RetrainingConfig(**there["config"])
            with np.load(path / ASKED, allow_pickle=False) as file:
                queries = Queries(
                    "retrained",
                    file["images"],
                    tuple(str(name) for name in file["ids"]),
                    tuple(str(name) for name in file["labels"]),
                )
        except Exception as error:
            raise RetracError(f"{path} is damaged ({error}): delete it and begin again") from error
        if there.get("trained") != run.origin:
            raise RetracError(f"{path} belongs to another training than {run.path}")
        return Retraining(path, run, queries, config)

    def refuse_other_queries(self, path: Path, config: Mapping[str, Any]) -> None:
        """Refuse scores that were computed for other images.

        Raises:
            RetracError: by their folder.
        """
        if config.get("queries") != self.design["queries"]:
            raise RetracError(
                f"{path} was scored for other queries than {self.path}: repeat `retrac attribute` "
                "with the --queries and --query-seed of `retrac lds prepare`"
            )

    @property
    def design(self) -> dict[str, Any]:
        """What decides the losses, as JSON values."""
        return {
            "trained": self.run.origin,
            "epochs": self.run.config.epochs,
            "queries": digest(*self.queries.told),
            "config": asdict(self.config),
        }

    @property
    def subsets(self) -> np.ndarray:
        """bool `[S, N]`."""
        config = self.config
        size = len(self.run.dataset)
        return random_subsets(size, config.subsets, config.fraction, config.subset_seed)

    @property
    def models(self) -> list[Model]:
        """All of them: every subset with the first seed, then with the next."""
        config = self.config
        return [
            Model(seed * config.subsets + subset, subset, seed)
            for seed in range(config.seeds)
            for subset in range(config.subsets)
        ]

    def missing(self, part: tuple[int, int] = (1, 1)) -> list[Model]:
        """Models of a part, such as (1, 4) for the first of four, without losses yet."""
        return [model for model in self._of_part(part) if not self._losses(model).is_file()]

    def train(self, model: Model) -> None:
        """Train a model, measure its losses, and let its weights go.

        Raises:
            RetracError: as `train`.
        """
        config, folder, dataset = self._training(model)
        trained = train(config, folder, dataset=dataset)
        found = last_losses(trained, self.plan, [self.queries.asked(self.run, self.plan)])
        if not np.isfinite(found).all():
            raise RetracError(f"the losses of {folder} are not finite")
        write_json(self._losses(model), {"losses": [float(loss) for loss in found]})
        remove(folder)

    @property
    def plan(self) -> Plan:
        """The draws at which losses are measured."""
        return measuring_plan(self.run, self.config.loss_timesteps, self.config.loss_noises)

    def losses(self) -> np.ndarray:
        """`[S, R, Q]`; NaN for models that are missing.

        Raises:
            RetracError: a file is damaged.
        """
        config = self.config
        found = np.full((config.subsets, config.seeds, len(self.queries)), np.nan)
        for model in self.models:
            path = self._losses(model)
            if path.is_file():
                values = read_json(path).get("losses", [])
                if len(values) != len(self.queries):
                    raise RetracError(f"{path} is damaged: delete it and go on")
                found[model.subset, model.seed] = values
        return found

    def _of_part(self, part: tuple[int, int]) -> list[Model]:
        number, parts = part
        return [model for model in self.models if model.number % parts == number - 1]

    def _training(self, model: Model) -> tuple[TrainConfig, Path, ImageDataset]:
        config = replace(
            self.run.config,
            seed=self.run.config.seed + 1 + model.number,
            checkpoint_every=self.run.config.epochs,
            sample_count=0,
        )
        chosen = np.flatnonzero(self.subsets[model.subset])
        return config, self.path / "models" / model.name, self.run.dataset.take(chosen)

    def _losses(self, model: Model) -> Path:
        return self.path / "losses" / f"{model.name}.json"


def _leftover(path: Path) -> bool:
    """Whether `begin` left it when it was stopped, or another device is at it."""
    return path.name == ASKED or path.suffix == PARTIAL


def lds_of(retraining: Retraining) -> Lds:
    """The metric on what is measured so far.

    Subsets count that every seed has been trained on; where these are too few, those that the
    first one has been trained on.

    Raises:
        RetracError: too few of them.
    """
    losses = retraining.losses()
    there = ~np.isnan(losses).any(2)  # [S, R]
    seeds = there.shape[1] if there.all(1).sum() >= FEWEST else 1
    kept = there[:, :seeds].all(1)
    if kept.sum() < FEWEST:
        remedy = (
            "let `retrac lds prepare` go on"
            if retraining.missing()
            else f"prepare {FEWEST} --subsets or more in another --output"
        )
        raise RetracError(
            f"{retraining.path} has the losses of {kept.sum()} subsets: a correlation needs at "
            f"least {FEWEST}; {remedy}"
        )
    return Lds(retraining.subsets[kept], losses[kept, :seeds])


def read_part(text: str) -> tuple[int, int]:
    """Read a part such as 2/4.

    Raises:
        RetracError: it is none.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise RetracError(f"--part must be like 2/4, the second of four parts, not {text!r}")
    return int(match[1]), int(match[2])
