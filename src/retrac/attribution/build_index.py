"""Making an index of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from retrac.attribution.ahead import ahead
from retrac.attribution.config import AttributeConfig, FeatureConfig, IndexConfig
from retrac.attribution.feature_plan import VISITS, FeaturePlan
from retrac.attribution.indexed import INDEX
from retrac.attribution.methods import Draws, method_named, methods, weight_named
from retrac.attribution.parts import Left
from retrac.attribution.replay import Replay
from retrac.attribution.sample_features import ComputedFeatures
from retrac.attribution.sample_scores import samples_in_piece
from retrac.attribution.scorer import Scorer
from retrac.attribution.sketched import lay_out, sample_sketches
from retrac.errors import RetracError
from retrac.gradients.sketch_layout import SketchLayout
from retrac.progress import progress
from retrac.store.bins import ONE, TIMESTEPS, BinRows, StoredBins
from retrac.store.feature import StoredFeature
from retrac.store.index import CONFIG, Index
from retrac.store.intervals import INTERVALS, StoredInterval
from retrac.training.run import Run

PARTS = 2
"""Parts of the draws of features that are stored, which show errors."""


def build_index(run: Run, config: IndexConfig | None = None) -> Index:
    """Store what methods need of every sample, in `RUN/index`.

    Stopped at any moment, the same call goes on. After further training, it adds the checkpoints
    that are new; other methods add what they need. The layout of sketches stays.

    Args:
        run: a training run.
        config: what is indexed.

    Raises:
        RetracError: the run has an index of other settings, a method cannot be indexed, a
            checkpoint is missing, the dataset has changed, a gradient is not finite, too little
            memory or space.
    """
    work = IndexWork.of(run, config or IndexConfig())
    index = work.planned()
    index.save()
    left = work.left(index)
    with progress("index", left.visits, "gradients") as advance:
        for replay in work.replays(index):
            work.add_interval(index.features[INTERVALS], replay, advance)
        if TIMESTEPS in index.features:
            work.add_bins(index.features[TIMESTEPS], advance)
    return index


@dataclass(frozen=True, eq=False)
class IndexWork:
    """What makes an index.

    Attributes:
        scorer: the run, its checkpoints, and the visits that stand for each.
        config: what is indexed.
    """

    scorer: Scorer
    config: IndexConfig

    @staticmethod
    def of(run: Run, config: IndexConfig) -> "IndexWork":
        """Choose checkpoints and visits.

        Raises:
            RetracError: the run has an index of other settings, a method cannot be indexed, or a
                checkpoint or the device is not there.
        """
        for method in map(method_named, config.methods):
            if method.parameter_metric or method.draws.value not in (INTERVALS, TIMESTEPS):
                raise RetracError(
                    f"{method.name} needs more of the samples than an index holds: leave it out of "
                    "--methods"
                )
        whole = AttributeConfig(
            methods=config.methods,
            checkpoints=config.checkpoints,
            replay=config.replay,
            parameters=config.parameters,
            compute=config.compute,
            features=FeatureConfig(config.draws, config.outputs),
        )
        work = IndexWork(Scorer.of(run, whole), config)
        work.earlier()
        return work

    def earlier(self) -> Index | None:
        """The run's index as it will be, if it has one; nothing is written.

        Raises:
            RetracError: it is of other settings.
        """
        return Index.resumed(self.scorer.run.path / INDEX, self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides what is stored but for the layout of sketches, as JSON values."""
        common = {
            "sketch_size": self.config.sketch_size,
            "precision": self.config.compute.precision,
        }
        features: dict[str, Any] = {}
        wanted = {method.draws.value for method in self.scorer.config.chosen} | self._there
        if INTERVALS in wanted:
            features[INTERVALS] = {
                "measurements": ["loss"],
                "weights": list(dict.fromkeys(each.__name__ for each in self.scorer.weights)),
                "checkpoints": [replay.checkpoint.epoch for replay in self.scorer.replays],
                "replay": self.config.replay,
                **common,
            }
        if TIMESTEPS in wanted:
            plan = self.plan
            features[TIMESTEPS] = {
                "measurements": [measurement.__name__ for measurement in plan.measurements],
                "weights": [ONE],
                "at": plan.checkpoint.epoch,
                "draws": plan.draws,
                "bins": plan.bins,
                "parts": plan.source.parts,
                **({"epochs": plan.epochs} if plan.draws == VISITS else {}),
                **common,
            }
        return {
            "kind": "replayed",
            "trained": self.scorer.run.identity,
            "parameters": self.scorer.pattern,
            "features": features,
        }

    @cached_property
    def plan(self) -> FeaturePlan:
        """Of features by bin of timesteps, at the last checkpoint: for the chosen methods, and for
        all that what is there serves."""
        chosen = {method.name for method in self.scorer.config.chosen}
        every = [
            method
            for method in methods().values()
            if method.draws is Draws.TIMESTEPS
            and (
                method.name in chosen
                or {each.__name__ for each in method.measurements} <= self._measured
            )
        ]
        return FeaturePlan.of(self.scorer, every, PARTS)

    def planned(self) -> Index:
        """The run's index as it will be, with sketches laid out; nothing is written.

        Raises:
            RetracError: it has one of other settings.
        """
        path = self.scorer.run.path / INDEX
        index = self.earlier() or Index.planned(path, self.settings)
        return index.with_sketches(self._layout)

    def _layout(self) -> SketchLayout:
        model = self.scorer.model(self.scorer.replays[-1])
        return lay_out(self.scorer.run, model, self.config.sketch_size)

    def left(self, index: Index) -> Left:
        """What an index lacks."""
        visits = self.interval_left(index)
        checkpoints = sum(bool(missing) for missing in self._missing(index).values())
        if TIMESTEPS in index.features and (samples := self.bins_left(index)):
            source, every = self.plan.source, np.arange(self.scorer.run.size)
            draws = sum(source.sample_draws(every, which) for which in range(source.bins))
            visits += round(draws * samples / len(every))
            checkpoints += 1
        return Left(checkpoints, 0, visits)

    def interval_left(self, index: Index) -> int:
        """Visits whose sums are not there yet."""
        replays = {replay.checkpoint.epoch: replay for replay in self.replays(index)}
        return sum(
            (chunk.stop - chunk.start) * len(replays[epoch].epochs)
            for epoch, missing in self._missing(index).items()
            for chunk in missing
        )

    def bins_left(self, index: Index) -> int:
        """Samples whose features by bin are not there yet."""
        table = StoredBins(index.features[TIMESTEPS], self.plan.checkpoint.epoch).table
        missing = table.missing if table.is_begun else [slice(0, self.scorer.run.size)]
        return sum(chunk.stop - chunk.start for chunk in missing)

    def _missing(self, index: Index) -> dict[int, list[slice]]:
        """Samples whose sums are not there yet, by checkpoint."""
        missing = {}
        for replay in self.replays(index):
            stored = StoredInterval(index.features[INTERVALS], replay.checkpoint.epoch)
            every = [slice(0, self.scorer.run.size)]
            missing[replay.checkpoint.epoch] = stored.missing if stored.is_begun else every
        return missing

    def replays(self, index: Index) -> tuple[Replay, ...]:
        """Those that the index adds up; none where it has no such feature."""
        return self.scorer.replays if INTERVALS in index.features else ()

    def add_interval(
        self, feature: StoredFeature, replay: Replay, advance: Callable[..., None]
    ) -> None:
        """Store sums over the visits before a checkpoint."""
        scorer, run, count = self.scorer, self.scorer.run, len(replay.epochs)
        stored = StoredInterval(feature, replay.checkpoint.epoch)
        stored.begin(run.size, count, samples_in_piece(run.shape, count))
        if not (missing := stored.missing):
            return
        model = scorer.model(replay)
        batch = scorer.rows(model)
        loaded = ahead(missing, lambda chunk: scorer.visits(replay, _range(chunk)))
        for chunk, visits in loaded:
            rows = sample_sketches(
                model,
                run.objective,
                visits,
                replay,
                _range(chunk),
                [weight_named(name) for name in feature.weights],
                feature.layout.projection,
                batch,
                run.dataset.ids,
            )
            stored.write(chunk, rows)
            advance(visits.size, note=f"epoch {replay.checkpoint.epoch}")

    def add_bins(self, feature: StoredFeature, advance: Callable[..., None]) -> None:
        """Store features by bin of timesteps, at the last checkpoint."""
        stored = StoredBins(feature, self.plan.checkpoint.epoch)
        stored.begin(self.scorer.run.size)
        if not (missing := stored.table.missing):
            return
        model = self.scorer.model(self.scorer.replays[-1])
        samples = self.plan.computed([feature.layout], self.scorer.rows(model))
        for chunk in missing:
            stored.write(chunk, bin_rows(samples, chunk, model, advance))

    @cached_property
    def _there(self) -> set[str]:
        """Names of the features that the run's index has: they grow with it."""
        return set(self._features)

    @cached_property
    def _measured(self) -> set[str]:
        """Names of the measurements that it has by bin of timesteps."""
        feature = self._features.get(TIMESTEPS)
        return set() if feature is None else {*feature.config["measurements"]}

    @cached_property
    def _features(self) -> Mapping[str, StoredFeature]:
        path = self.scorer.run.path / INDEX
        return Index.open(path).features if (path / CONFIG).is_file() else {}


def bin_rows(
    samples: ComputedFeatures, chunk: slice, model: nn.Module, advance: Callable[[int], None]
) -> BinRows:
    """Features of some samples in all bins."""
    bins = range(samples.source.bins)
    made = [samples.of_chunk(_range(chunk), which, 0, model, advance) for which in bins]
    sums = np.stack([each.sums.float().numpy() for each in made])  # `[bins, R, G, S, d]`
    counts = np.stack([each.counts.numpy() for each in made])  # `[bins, G, S]`
    return BinRows(np.moveaxis(sums, 3, 0), np.moveaxis(counts, 2, 0))


def _range(chunk: slice) -> np.ndarray:
    return np.arange(chunk.start, chunk.stop)
