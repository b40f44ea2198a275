"""How methods that compare features are scored by the features of samples in an index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from retrac.attribution.asked import Queries
from retrac.attribution.draws import PARTS, Grid
from retrac.attribution.feature_plan import VISITS, grid, layered
from retrac.attribution.feature_work import FeatureWork
from retrac.attribution.methods import Draws, Method, by_feature
from retrac.attribution.replay import LAST_EVENTS
from retrac.attribution.sample_features import StoredFeatures
from retrac.attribution.scorer import Scorer
from retrac.diffusion.measurements import Measurement, loss
from retrac.store.bins import TIMESTEPS, StoredBins
from retrac.store.feature import StoredFeature
from retrac.store.index import Index


@dataclass(frozen=True, eq=False)
class StoredPlan:
    """The stored features that methods share.

    Attributes:
        scorer: the run, and how it is scored.
        methods: M of them.
        feature: in the index.
        epochs: of the checkpoints whose sums are taken together.
    """

    scorer: Scorer
    methods: tuple[Method, ...]
    feature: StoredFeature
    epochs: tuple[int, ...]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Those of the methods that are stored and wanted."""
        wanted, stored = self.methods[0].measurements, self.feature.config["measurements"]
        if loss in wanted and not self.scorer.config.features.outputs:
            wanted = (loss,)
        return tuple(each for each in wanted if each.__name__ in stored)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the scores, as JSON values."""
        return {
            "methods": [method.name for method in self.methods],
            "measurements": [measurement.__name__ for measurement in self.measurements],
            "draws": self.feature.config["draws"],
            "grid": self.source.settings,
            "visits": list(self.epochs),
            "query_weights": "averaged" if self.recorded else "trained",
        }

    @property
    def recorded(self) -> bool:
        """Whether gradients were taken while weights moved on, not at one checkpoint's."""
        return "at" not in self.feature.config

    @property
    def source(self) -> Grid:
        """The draws of queries: at the timesteps of the samples, with noises of their own."""
        config, seed = self.feature.config, self.scorer.config.plan.plan_seed
        draws, bins, parts = config["draws"], int(config["bins"]), int(config["parts"])
        most = min(PARTS, parts * len(self.epochs))
        if draws == VISITS:
            return grid(self.scorer, draws, bins, seed, most)
        return replace(grid(self.scorer, draws, bins, 0, most), seed=seed)

    def work(self, queries: Queries) -> FeatureWork:
        """The work for some queries.

        Raises:
            RetracError: the checkpoint is damaged.
        """
        scorer, stored, source = self.scorer, self.feature.config["measurements"], self.source
        model = self._model()
        samples = StoredFeatures(
            [StoredBins(self.feature, epoch) for epoch in self.epochs],
            [stored.index(measurement.__name__) for measurement in self.measurements],
            source.parts,
        )
        return FeatureWork(
            scorer.run,
            scorer.replays[-1].checkpoint,
            self._model,
            self.methods,
            self.measurements,
            source,
            samples,
            [self.feature.layout],
            scorer.rows(model),
            queries,
            *layered(scorer, self.methods, model),
        )

    def _model(self) -> nn.Module:
        """Of the queries. Weights moved on from one recorded gradient to the next: queries meet
        them in their midst, at the moving average."""
        scorer, replay = self.scorer, self.scorer.replays[-1]
        return scorer.averaged_model(replay) if self.recorded else scorer.model(replay)


def stored_plans(scorer: Scorer, index: Index) -> tuple[StoredPlan, ...]:
    """One for each feature of the chosen methods that compare features, all of which are there."""
    chosen = [method for method in scorer.config.chosen if method.draws is Draws.TIMESTEPS]
    feature = index.features.get(TIMESTEPS)
    if feature is None or not chosen:
        return ()
    epochs = last_sums(feature, [replay.checkpoint.epoch for replay in scorer.replays])
    groups = by_feature(chosen).values()
    return tuple(StoredPlan(scorer, tuple(group), feature, epochs) for group in groups)


def last_sums(feature: StoredFeature, checkpoints: Sequence[int]) -> tuple[int, ...]:
    """The checkpoints whose sums are taken together.

    Args:
        feature: taken at the last of them alone, or recorded between them.
        checkpoints: their epochs, rising.
    """
    if "at" in feature.config:
        return (int(feature.config["at"]),)
    starts = [0, *checkpoints]
    wanted = [start for start in starts if start <= starts[-1] - LAST_EVENTS]
    first = wanted[-1] if wanted else 0
    return tuple(epoch for epoch in checkpoints if epoch > first)
