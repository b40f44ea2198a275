"""How the features of some methods are made: which draws, which measurements, how many numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn

from retrac.attribution.asked import Queries
from retrac.attribution.config import BIN_GRID, BINS, GRIDS
from retrac.attribution.draws import PARTS, Grid, Source, Visits
from retrac.attribution.feature_work import FeatureWork
from retrac.attribution.memory import budget_of
from retrac.attribution.methods import Draws, Method, by_feature
from retrac.attribution.replay import last_epochs
from retrac.attribution.sample_features import ComputedFeatures
from retrac.attribution.scorer import Scorer
from retrac.attribution.sketched import sides_of
from retrac.diffusion.measurements import Measurement, loss
from retrac.errors import RetracError
from retrac.gradients.allocation import (
    Sides,
    Sizes,
    allocate_evenly,
    blocks,
)
from retrac.gradients.layers import LayerGroups, layer_of
from retrac.gradients.sketch_layout import SketchLayout
from retrac.training.run import Checkpoint

FEWEST = 2 * BINS
"""Events of a sample with which bins of them are worth taking."""
VISITS = "visits"
"""Draws that are the events of training."""


@dataclass(frozen=True, eq=False)
class FeaturePlan:
    """The draws and measurements of methods that share a feature.

    Attributes:
        scorer: the run, and how it is scored.
        methods: M of them.
        measurements: those of the feature that the run can give.
        draws: "visits", or the name of a grid.
        most_parts: into which draws fall.
    """

    scorer: Scorer
    methods: tuple[Method, ...]
    measurements: tuple[Measurement, ...]
    draws: str
    most_parts: int = PARTS

    @staticmethod
    def of(scorer: Scorer, methods: Sequence[Method], most_parts: int = PARTS) -> "FeaturePlan":
        """Choose what the run has for it.

        Raises:
            RetracError: the run knows no events, or gives no output, that a method needs.
        """
        run = scorer.run
        given = tuple(dict.fromkeys(each for method in methods for each in method.measurements))
        if not run.objective.gives_output or (loss in given and not scorer.config.features.outputs):
            given = tuple(measurement for measurement in given if measurement is loss)
        if not given:
            raise RetracError(
                f"{methods[0].name} compares outputs of the network, and {run.path} gives losses "
                "alone: leave it out of --methods"
            )
        draws = _draws(scorer, methods[0].draws)
        return FeaturePlan(scorer, tuple(methods), given, draws, most_parts)

    @property
    def checkpoint(self) -> Checkpoint:
        """The last of those that are chosen."""
        return self.scorer.replays[-1].checkpoint

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the scores, as JSON values."""
        told: dict[str, Any] = {
            "methods": [method.name for method in self.methods],
            "measurements": [measurement.__name__ for measurement in self.measurements],
            "draws": self.draws,
            "grid": self.source.settings,
            "layer_numbers": self.scorer.config.features.layer_numbers,
        }
        if self.draws == VISITS:
            told["visits"] = self.epochs
        return told

    @cached_property
    def source(self) -> Source:
        """The draws of samples and queries."""
        scorer, seed = self.scorer, self.scorer.config.plan.plan_seed
        queries = grid(scorer, self.draws, self.bins, seed, self.most_parts)
        if self.draws == VISITS:
            return Visits.of(scorer.run, self.epochs, queries)
        return queries

    @property
    def bins(self) -> int:
        """Of timesteps."""
        if self.draws == VISITS:
            return min(BINS, max(1, len(self.epochs) // 2))
        return GRIDS[self.draws][0] if self.methods[0].draws is Draws.TIMESTEPS else 1

    @property
    def epochs(self) -> list[int]:
        """Of the events of samples."""
        return last_epochs(self.scorer.run, self.checkpoint, self.scorer.config.replay_back)

    def work(self, queries: Queries) -> FeatureWork:
        """The work for some queries; looks at a pass to lay features out.

        Raises:
            RetracError: the checkpoint is damaged, or memory cannot hold it.
        """
        scorer, numbers = self.scorer, self.scorer.config.features.layer_numbers
        model = scorer.model(scorer.replays[-1])
        sides = sides_of(scorer.run, model)
        if numbers:
            lots: list[Sizes] = [allocate_evenly(sides, numbers)]
        else:
            whole = {name: (side.inputs, side.outputs) for name, side in sides.items()}
            lots = self._whole_layers(model, sides, whole, len(queries))
        seed, rows = scorer.run.ledger.seed, scorer.rows(model)
        layouts = [SketchLayout.of(seed, sides, lot) for lot in lots]
        return FeatureWork(
            scorer.run,
            self.checkpoint,
            lambda: scorer.model(scorer.replays[-1]),
            self.methods,
            self.measurements,
            self.source,
            self.computed(layouts, rows),
            layouts,
            rows,
            queries,
            *layered(scorer, self.methods, model),
        )

    def computed(self, lots: Sequence[SketchLayout], rows: int) -> ComputedFeatures:
        """The samples' features, to be computed in passes of so many rows."""
        run, measurements = self.scorer.run, self.measurements
        return ComputedFeatures(run, self.checkpoint, measurements, self.source, lots, rows)

    def _whole_layers(
        self, model: nn.Module, sides: dict[str, Sides], whole: Sizes, queries: int
    ) -> list[Sizes]:
        """All layers, in as many lots as memory takes; one where methods take them together."""
        first = next(model.parameters())
        width = torch.promote_types(first.dtype, torch.float32).itemsize
        copies = width * len(self.measurements) * (self.source.parts + 2)
        images = self.scorer.run.size + queries
        room = budget_of(self.scorer.config.compute, first.device) // 2
        places = blocks(sides, whole)
        lots: list[dict[str, tuple[int, int]]] = [{}]
        held = 0
        for _, members in groupby(whole, layer_of):
            layer = list(members)
            need = copies * images * (places[layer[-1]].stop - places[layer[0]].start)
            if held and held + need > room:
                lots.append({})
                held = 0
            held += need
            lots[-1] |= {name: whole[name] for name in layer}
        if len(lots) > 1 and any(not method.separable for method in self.methods):
            names = ", ".join(method.name for method in self.methods if not method.separable)
            raise RetracError(
                f"whole gradients do not fit into memory for {names}: give --layer-numbers, such "
                "as 256, or raise --memory-budget"
            )
        return list(lots)


def layered(
    scorer: Scorer, methods: Sequence[Method], model: nn.Module
) -> tuple[LayerGroups, bool, np.ndarray | None]:
    """Groups of layers, whether their shares are wanted, and their weights `[M, L]`.

    Raises:
        RetracError: the weights are of other methods, or of another network.
    """
    groups, weights = scorer.layers(model), scorer.layer_weights
    if weights is None:
        return groups, scorer.config.by_layer, None
    found = np.stack([weights.of(method.name, groups.names) for method in methods])
    return groups, scorer.config.by_layer, found


def grid(scorer: Scorer, draws: str, bins: int, seed: int, most_parts: int) -> Grid:
    """Timesteps and noises, of samples and queries or beside the events of samples.

    Args:
        scorer: the run, and its checkpoints.
        draws: "visits", or the name of a grid.
        bins: of timesteps.
        seed: of timesteps and noises.
        most_parts: into which draws fall.
    """
    count, noises = BIN_GRID if draws == VISITS else GRIDS[draws]
    count = count * bins if draws == VISITS else count
    epoch = scorer.replays[-1].checkpoint.epoch
    return Grid.spread(scorer.run, count, bins, noises, seed, epoch, most_parts)


def feature_plans(scorer: Scorer) -> tuple[FeaturePlan, ...]:
    """One for each feature of the chosen methods that compare features.

    Raises:
        RetracError: as `FeaturePlan.of`.
    """
    chosen = [
        each for each in scorer.config.chosen if each.draws in (Draws.TIMESTEPS, Draws.AVERAGE)
    ]
    return tuple(FeaturePlan.of(scorer, group) for group in by_feature(chosen).values())


def _draws(scorer: Scorer, draws: Draws) -> str:
    """Which draws it will be: "visits", or a grid."""
    wanted = scorer.config.features.draws
    if wanted in GRIDS:
        return wanted
    if draws is Draws.AVERAGE:
        return "medium"
    run, checkpoint = scorer.run, scorer.replays[-1].checkpoint
    known = len(last_epochs(run, checkpoint)) if run.events_known else 0
    if wanted == VISITS:
        if known < 2:
            raise RetracError(
                f"{run.path} knows no events of its training, or one of each sample alone: leave "
                "out --draws visits"
            )
        return wanted
    return VISITS if known >= FEWEST else "medium"
