"""The engine: methods in groups that share a feature, each group scored in one pass."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retrac.attribution.asked import Queries
from retrac.attribution.calibration import Calibration
from retrac.attribution.config import AttributeConfig
from retrac.attribution.exact import Scored, exact_scores
from retrac.attribution.feature_plan import FeaturePlan, feature_plans
from retrac.attribution.feature_work import FeatureWork, pseudo_groups
from retrac.attribution.indexed import as_indexed, index_scores, open_index
from retrac.attribution.methods import Draws
from retrac.attribution.parts import Parts
from retrac.attribution.scorer import Scorer
from retrac.attribution.stored_plan import StoredPlan, stored_plans
from retrac.attribution.unrolled_work import UnrolledPlan
from retrac.errors import RetracError
from retrac.fingerprints import digest
from retrac.store.index import Index
from retrac.training.run import Run


@dataclass(frozen=True, eq=False)
class Scores:
    """What all methods say.

    Attributes:
        score: `[M, K, Q, N]`, by checkpoint; 0 where a method does not look at one. Float64 where
            gradients are, else float32.
        groups: by method `[G, Q, N]`, what independent groups of draws add to its scores, where
            checkpoints are none.
        layers: by method `[L, Q, N]`, what each group of layers adds to its scores, if wanted.
        layer_names: L of them.
        intervals: what was found on the way by methods that add up intervals.
        exact: indices of the samples whose scores were not estimated from a store; of an index,
            by methods that add up intervals.
        calibrations: by method, of those that look at a window that was replayed.
    """

    score: np.ndarray
    groups: Mapping[str, np.ndarray]
    layers: Mapping[str, np.ndarray]
    layer_names: tuple[str, ...]
    intervals: Scored | None
    exact: np.ndarray
    calibrations: Mapping[str, Calibration]


@dataclass(frozen=True, eq=False)
class Engine:
    """How a run is scored.

    Attributes:
        scorer: of methods that add up intervals; what all have in common.
        last: of methods that look at the last events alone.
        index: from which they answer; None for exact scores.
        plans: of methods that compare features, one for each.
        unrolled: of methods that look at a window.
    """

    scorer: Scorer
    last: Scorer
    index: Index | None
    plans: tuple[FeaturePlan | StoredPlan, ...]
    unrolled: UnrolledPlan | None = None

    @staticmethod
    def of(run: Run, config: AttributeConfig) -> "Engine":
        """Open what it takes.

        Raises:
            RetracError: a checkpoint, the device, the index, or what a method needs is not there.
        """
        index = open_index(run, config) if config.index or config.recorded else None
        settled = config if index is None else as_indexed(config, index, run)
        scorer = Scorer.of(run, settled)
        last = Scorer.of(run, settled, Draws.LAST)
        scorer.refuse_unfit_weights()
        if settled.exact_top and not scorer.methods:
            raise RetracError(
                "--exact-top scores candidates again by the events of training, which none of "
                f"{', '.join(settled.methods)} adds up: leave it out"
            )
        plans = feature_plans(scorer) if index is None else stored_plans(scorer, index)
        return Engine(scorer, last, index, plans, UnrolledPlan.of(scorer))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the scores of whatever is asked, as JSON values."""
        chosen = self.scorer.config.chosen
        settings = {
            **self.scorer.settings,
            "methods": [method.name for method in chosen],
            "records": {method.name: method.identity for method in chosen},
        }
        features = [plan.settings for plan in self.plans]
        if self.last.methods:
            (replay,) = self.last.replays
            names = [method.name for method in self.last.methods]
            features.append({"methods": names, "visits": list(replay.epochs)})
        if self.unrolled is not None:
            features.append(self.unrolled.settings)
        if features:
            settings["features"] = features
        if self.index is None:
            return settings
        stored = [
            self.index.config["features"][each] for each in sorted({m.draws.value for m in chosen})
        ]
        about = {
            "kind": self.index.config["kind"],
            "features": [digest(feature) for feature in stored],
            "size": max(feature["sketch"]["size"] for feature in stored),
        }
        return {**settings, "index": about, "exact_top": self.scorer.config.exact_top}

    def settings_for(self, queries: Queries) -> dict[str, Any]:
        """With what is asked."""
        labels = [list(queries.labels)] if self.scorer.run.told else []
        guided = {"query_guidance": queries.guidance} if queries.guidance != 1 else {}
        return {**self.settings, "queries": digest(*queries.told, *labels), **guided}

    def works(self, queries: Queries) -> list[FeatureWork]:
        """The work of each feature."""
        return [plan.work(queries) for plan in self.plans]

    def scores(self, queries: Queries, parts: Parts) -> Scores:
        """Score all samples; pieces that are there are not computed again."""
        scorer, size = self.scorer, self.scorer.run.size
        names = list(scorer.config.methods)
        wide = scorer.config.compute.precision == "float64"
        score = np.zeros(
            (len(names), len(scorer.replays), len(queries), size),
            np.float64 if wide else np.float32,
        )
        groups: dict[str, np.ndarray] = {}
        layers: dict[str, np.ndarray] = {}
        intervals, exact = None, np.arange(size if self.index is None else 0)
        if scorer.methods:
            intervals, exact = self._intervals(queries, parts)
            for place, method in enumerate(scorer.methods):
                score[names.index(method.name)] = intervals.score[place]
                if intervals.groups is not None:
                    groups[method.name] = intervals.groups[place]
                if intervals.layers is not None:
                    layers[method.name] = intervals.layers[place]
        if self.last.methods:
            found = exact_scores(self.last, queries, np.arange(size), parts)
            for place, method in enumerate(self.last.methods):
                score[names.index(method.name), -1] = found.score[place, 0]
                groups[method.name] = (
                    found.score[place] if found.groups is None else found.groups[place]
                )
                if found.layers is not None:
                    layers[method.name] = found.layers[place]
        for work in self.works(queries):
            work.do(parts)
            for method, each in zip(work.methods, work.assemble(parts), strict=True):
                score[names.index(method.name), -1] = each[0]
                groups[method.name] = pseudo_groups(each) if len(each) > 1 else each[:1]
            if work.by_layer:
                layers |= zip(
                    (method.name for method in work.methods),
                    work.assemble(parts, "layers"),
                    strict=True,
                )
        calibrations = {}
        if self.unrolled is not None:
            window = self.unrolled.work(queries)
            window.do(parts)
            calibration = window.calibration(parts)
            for method in window.plan.methods:
                score[names.index(method.name), -1] = window.assemble(parts)
                groups[method.name] = window.assemble(parts)[None]
                if calibration is not None:
                    calibrations[method.name] = calibration
        return Scores(score, groups, layers, self._layer_names(), intervals, exact, calibrations)

    def _layer_names(self) -> tuple[str, ...]:
        """Of the groups of layers, if their shares are wanted."""
        scorer = self.scorer
        if not scorer.config.by_layer:
            return ()
        return scorer.layers(scorer.model(scorer.replays[-1])).names

    def _intervals(self, queries: Queries, parts: Parts) -> tuple[Scored, np.ndarray]:
        """Scores of methods that add up intervals, and the samples of which these are exact."""
        every = np.arange(self.scorer.run.size)
        if self.index is None:
            return exact_scores(self.scorer, queries, every, parts), every
        scored = index_scores(self.scorer, self.index, queries, parts)
        top = self.scorer.config.exact_top
        if top == 0:
            return scored, np.array([], int)
        order = np.argsort(-scored.score.sum(1), axis=2, kind="stable")
        candidates = np.unique(order[..., :top])
        again = exact_scores(self.scorer, queries, candidates, parts)
        score = scored.score.copy()
        score[..., candidates] = again.score
        return replace(scored, score=score), candidates
