"""Training again without the samples that a query is said to be owed to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retrac.attribution.asked import Queries
from retrac.attribution.attribution import Attribution
from retrac.attribution.losses import mean_losses
from retrac.attribution.plan import Plan
from retrac.attribution.queries import GENERATED, generation_steps, regenerated
from retrac.attribution.ranking import evenly_spread
from retrac.attribution.store import refuse_other
from retrac.diffusion.device import choose_device
from retrac.diffusion.sampling import BATCH, sample
from retrac.errors import RetracError
from retrac.estimate import Estimate, seconds_of
from retrac.evaluation.baselines import pixel_scores
from retrac.evaluation.config import RemovalConfig
from retrac.evaluation.images import pixel_distance, structural_similarity
from retrac.evaluation.losses import (
    last_losses,
    measuring_plan,
    training_losses,
)
from retrac.evaluation.removal import DISTANCE, LOSS, RANDOM, SIMILARITY, Removal
from retrac.evaluation.thinned import train_without
from retrac.files import PARTIAL, read_json, remove, write_json, write_whole
from retrac.fingerprints import digest
from retrac.training.config import TrainConfig
from retrac.training.estimate import estimate_training
from retrac.training.loop import first_weights
from retrac.training.trained import TrainedRun

DESIGN = "design.json"
LOSSES_FILE = "training-losses.npz"
LOSSES = "training loss"


@dataclass(frozen=True)
class Model:
    """A model without some samples.

    Attributes:
        name: of its files.
        way: how the samples are chosen.
        rows: of the queries that are put to it.
        draw: which of the choices at random it is.
    """

    name: str
    way: str
    rows: tuple[int, ...]
    draw: int = 0


@dataclass(frozen=True, eq=False)
class Found:
    """What a model makes of queries.

    Attributes:
        losses: float64, one for each query.
        made: id -> uint8 `[C, H, W]`, of those that are generated.
    """

    losses: np.ndarray
    made: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Removing:
    """A folder of what models make of queries that were trained without some samples.

    All are trained as the run was, with its seed, first weights, events and batches (`Thinned`).
    Queries that are training samples are never removed, whatever the way.

    Attributes:
        path: the folder.
        run: whose training is repeated.
        queries: those used.
        scores: way -> `[Q, N]`, of the methods and of nearness in pixels.
        config: how.
    """

    path: Path
    run: TrainedRun
    queries: Queries
    scores: Mapping[str, np.ndarray]
    config: RemovalConfig

    @staticmethod
    def planned(
        run: TrainedRun, result: Attribution, config: RemovalConfig, path: Path
    ) -> "Removing":
        """What a folder will hold, or goes on with; nothing is written.

        Raises:
            RetracError: scores of another training, too many samples to be removed, or the folder
                holds something else.
        """
        told, trained = result.config, run.checkpoints[-1].epoch
        if told.get("trained") != run.identity or told["run"]["epochs trained"] != trained:
            raise RetracError(
                f"the scores are not of {run.path} as it is now: repeat `retrac attribute`"
            )
        data = result.dataset
        every = Queries(
            "removal",
            data["query_image"].values,
            tuple(str(name) for name in data["query_id"].values),
            tuple(str(name) for name in data["query_label"].values),
        )
        rows = np.array(evenly_spread(len(every), config.queries_used))
        queries = every.take(rows)
        scores = {
            **{name: result.scores_of(name).values[rows] for name in result.methods},
            "pixels": pixel_scores(queries.images, run.dataset.images),
        }
        found = Removing(path, run, queries, scores, config)
        most = len(run.dataset) - max(run.steps_per_epoch, len(queries))
        if config.k > most:
            raise RetracError(
                f"--k must be at most {most} here, not {config.k}: a sample must be left for each "
                "step of an epoch, and all queries"
            )
        if (path / DESIGN).is_file():
            refuse_other(path, read_json(path / DESIGN), found.design)
        elif path.exists() and not all(_leftover(each) for each in path.iterdir()):
            raise RetracError(f"{path} holds something else; choose another --output")
        return found

    @property
    def design(self) -> dict[str, Any]:
        """What decides the results, as JSON values."""
        return {
            "trained": self.run.identity,
            "epochs": self.run.checkpoints[-1].epoch,
            "queries": digest(*self.queries.told),
            "removed": digest([[model.name, self.removed(model)] for model in self.models]),
            "config": asdict(self.config),
        }

    @cached_property
    def losses(self) -> np.ndarray:
        """The samples' training losses `[N]`, those that the folder was begun with.

        Raises:
            RetracError: they are damaged.
        """
        place = self.path / LOSSES_FILE
        if not place.is_file():
            return training_losses(self.run)
        try:
            with np.load(place, allow_pickle=False) as file:
                return np.asarray(file["losses"], float)
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise RetracError(f"{place} is damaged ({error}): choose another --output") from error

    @property
    def models(self) -> list[Model]:
        """Those to be trained: without random samples, then each way, query by query."""
        every = tuple(range(len(self.queries)))
        return [
            *(
                Model(f"{RANDOM}-{draw:02d}", RANDOM, every, draw)
                for draw in range(self.config.random_draws)
            ),
            *(Model(f"{way}-query-{row:02d}", way, (row,)) for way in self.scores for row in every),
            Model("training-loss", LOSSES, every),
        ]

    def removed(self, model: Model) -> tuple[int, ...]:
        """Indices of the samples that a model is trained without."""
        order = self._order(model)
        kept = order[~np.isin(order, self._own)]
        return tuple(int(sample) for sample in kept[: self.config.k])

    @property
    def full(self) -> Model:
        """The run's own model."""
        return Model("nothing", "nothing", tuple(range(len(self.queries))))

    def missing(self) -> list[Model]:
        """Models that are still to be trained."""
        return [model for model in self.models if not self._found(model).is_file()]

    def estimate(self) -> Estimate | None:
        """What the missing models will need; None where none is, or each is soon trained."""
        missing, run = self.missing(), self.run
        if not missing:
            return None
        one = estimate_training(self._training, run.dataset, self._folder(missing[0]), None)
        if one is None:
            return None
        network = first_weights(run.config, run.shape).to(choose_device())
        query = self.queries.take([0]).asked(run, self.plan)
        looked = seconds_of(lambda: mean_losses(network, run.objective, self.plan, query))
        asked = sum(len(model.rows) for model in missing)
        passes = generation_steps(run) * sum(
            -(
                -sum(GENERATED.fullmatch(self.queries.ids[row]) is not None for row in model.rows)
                // BATCH
            )
            for model in missing
        )
        drawn = 0.0
        if passes:
            drawn = seconds_of(lambda: sample(network, run.making, range(1), 0, 1, shown=False))
        seconds = len(missing) * one.seconds + asked * looked + passes * drawn
        return replace(one, seconds=seconds)  # each model goes before the next comes

    def begin(self) -> None:
        """Write the design, and what the run's own model makes of the queries, if missing."""
        if not (self.path / DESIGN).is_file():
            place = self.path / LOSSES_FILE
            with write_whole(place) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, losses=self.losses)
            write_json(self.path / DESIGN, self.design)
        if not self._found(self.full).is_file():
            self._measure(self.run, self.full)
        for model in self.models:
            if self._found(model).is_file():  # stopped just before its weights went
                remove(self._folder(model))

    def train(self, model: Model) -> None:
        """Train a model, see what it makes of its queries, and let its weights go.

        Raises:
            RetracError: as `train`.
        """
        folder = self._folder(model)
        removed = self.removed(model)
        self._measure(train_without(self._training, folder, self.run.dataset, removed), model)
        remove(folder)

    @property
    def plan(self) -> Plan:
        """The draws at which losses are measured."""
        return measuring_plan(self.run, self.config.loss_timesteps, self.config.loss_noises)

    def metric(self) -> Removal:
        """What is measured so far.

        Raises:
            RetracError: a file is absent or damaged.
        """
        metric, before = Removal(), self.read(self.full).losses
        for model in self.models:
            if not self._found(model).is_file():
                continue
            found = self.read(model)
            for row, loss in zip(model.rows, found.losses, strict=True):
                name, image = self.queries.ids[row], self.queries.images[row]
                measures = {LOSS: 100 * float(loss / before[row] - 1)}
                if name in found.made:
                    made = found.made[name]
                    measures[DISTANCE] = pixel_distance(image, made)
                    measures[SIMILARITY] = structural_similarity(image, made)
                metric.update(model.way, name, measures)
        return metric

    def told(self) -> dict[str, Any]:
        """What was found, as JSON values.

        Raises:
            RetracError: as `metric`.
        """
        metric, ids = self.metric(), self.run.dataset.ids
        return {
            "k": self.config.k,
            "samples": len(ids),
            "queries": list(self.queries.ids),
            "random draws": self.config.random_draws,
            **{section.name: section.to_json()["rows"] for section in metric.sections()},
            "by query": metric.by_query(),
            "removed": {
                model.name: [ids[row] for row in self.removed(model)] for model in self.models
            },
        }

    def pictures(self) -> dict[str, dict[str, np.ndarray]]:
        """Generated query -> way -> the image made without its samples; at random, of one draw.

        Raises:
            RetracError: a file is absent or damaged.
        """
        pictures: dict[str, dict[str, np.ndarray]] = {}
        for model in self.models:
            for name, image in self.read(model).made.items():
                pictures.setdefault(name, {}).setdefault(model.way, image)
        return pictures

    def read(self, model: Model) -> Found:
        """What a model made of its queries.

        Raises:
            RetracError: its file is absent or damaged.
        """
        path = self._found(model)
        try:
            with np.load(path, allow_pickle=False) as file:
                made = dict(zip(map(str, file["ids"]), file["images"], strict=True))
                found = Found(file["losses"], made)
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise RetracError(f"{path} is damaged ({error}): delete it and go on") from error
        if len(found.losses) != len(model.rows):
            raise RetracError(f"{path} is damaged: delete it and go on")
        return found

    @cached_property
    def _own(self) -> np.ndarray:
        """Indices of samples that are queries, too."""
        asked = {*self.queries.ids}
        found = [place for place, name in enumerate(self.run.dataset.ids) if name in asked]
        return np.array(found, int)

    def _order(self, model: Model) -> np.ndarray:
        """Samples, those first that go first."""
        if model.way == RANDOM:
            stream = np.random.default_rng([self.config.removal_seed, model.draw])
            return stream.permutation(np.setdiff1d(np.arange(len(self.run.dataset)), self._own))
        alike = model.way == LOSSES  # whatever is asked
        scores = self.losses if alike else self.scores[model.way][model.rows[0]]
        return np.argsort(-scores, kind="stable")

    @property
    def _training(self) -> TrainConfig:
        epochs = self.run.checkpoints[-1].epoch
        return replace(self.run.config, epochs=epochs, checkpoint_every=epochs, sample_count=0)

    def _measure(self, run: TrainedRun, model: Model) -> None:
        asked = self.queries.take(model.rows)
        losses = last_losses(run, self.plan, [asked.asked(run, self.plan)])
        if not np.isfinite(losses).all():
            raise RetracError(f"the losses of {run.path} are not finite")
        made = regenerated(run, asked.ids)
        images = np.array([*made.values()], np.uint8)
        with write_whole(self._found(model)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, losses=losses, ids=np.array([*made], str), images=images)

    def _folder(self, model: Model) -> Path:
        return self.path / "models" / model.name

    def _found(self, model: Model) -> Path:
        return self.path / "found" / f"{model.name}.npz"


def _leftover(path: Path) -> bool:
    """Whether `begin` left it when it was stopped."""
    return path.name == LOSSES_FILE or path.suffix == PARTIAL
