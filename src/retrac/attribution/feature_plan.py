"""How the features of some methods are made: which draws, which measurements, how many numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from retrac.attribution.asked import Queries
from retrac.attribution.config import BIN_GRID, BINS, GRIDS
from retrac.attribution.draws import Grid, Source, Visits
from retrac.attribution.feature_work import FeatureWork
from retrac.attribution.memory import budget_of
from retrac.attribution.methods import Draws, Method, by_feature
from retrac.attribution.replay import last_epochs
from retrac.attribution.scorer import Scorer
from retrac.diffusion.measurements import Measurement, loss
from retrac.diffusion.shown import Seen
from retrac.errors import RetracError
from retrac.gradients.allocation import (
    Sides,
    Sizes,
    allocate_evenly,
    blocks,
    blocks_by_layer,
    measure_sides,
)
from retrac.gradients.sketch import Projection
from retrac.training.run import Checkpoint, Run

FEWEST = 2 * BINS
"""Events of a sample with which bins of them are worth taking."""


@dataclass(frozen=True, eq=False)
class FeaturePlan:
    """The draws and measurements of methods that share a feature.

    Attributes:
        scorer: the run, and how it is scored.
        methods: M of them.
        measurements: those of the feature that the run can give.
        draws: "visits", or the name of a grid.
    """

    scorer: Scorer
    methods: tuple[Method, ...]
    measurements: tuple[Measurement, ...]
    draws: str

    @staticmethod
    def of(scorer: Scorer, methods: Sequence[Method]) -> "FeaturePlan":
        """Choose what the run has for it.

        Raises:
            RetracError: the run knows no events, or gives no output, that a method needs.
        """
        feature, run = methods[0].feature, scorer.run
        given = feature.measurements
        if not run.objective.gives_output or (loss in given and not scorer.config.features.outputs):
            given = tuple(measurement for measurement in given if measurement is loss)
        if not given:
            raise RetracError(
                f"{methods[0].name} compares outputs of the network, and {run.path} gives losses "
                "alone: leave it out of --methods"
            )
        return FeaturePlan(scorer, tuple(methods), given, _draws(scorer, feature.draws))

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
            "layer_numbers": self.scorer.config.features.layer_numbers,
        }
        if self.draws == "visits":
            told["visits"] = self._epochs
        return told

    @cached_property
    def source(self) -> Source:
        """The draws of samples and queries."""
        run, seed = self.scorer.run, self.scorer.config.plan.plan_seed
        spread = partial(Grid.spread, run, seed=seed, epoch=self.checkpoint.epoch)
        if self.draws == "visits":
            bins = min(BINS, max(1, len(self._epochs) // 2))
            each, noises = BIN_GRID
            return Visits.of(run, self._epochs, spread(each * bins, bins=bins, noises=noises))
        count, noises = GRIDS[self.draws]
        alone = self.methods[0].draws is Draws.TIMESTEPS
        return spread(count, bins=count if alone else 1, noises=noises)

    @property
    def _epochs(self) -> list[int]:
        return last_epochs(self.scorer.run, self.checkpoint, self.scorer.config.replay_back)

    def work(self, queries: Queries) -> FeatureWork:
        """The work for some queries; looks at a pass to lay features out.

        Raises:
            RetracError: the checkpoint is damaged, or memory cannot hold it.
        """
        scorer, numbers = self.scorer, self.scorer.config.features.layer_numbers
        model = scorer.model(scorer.replays[-1])
        sides = measure_sides(model, partial(_probe, scorer.run, model))
        seed = scorer.run.ledger.seed
        if numbers:
            lots: list[Sizes] = [allocate_evenly(sides, numbers)]
        else:
            whole = {name: (side.inputs, side.outputs) for name, side in sides.items()}
            lots = self._whole_layers(model, sides, whole, len(queries))
        return FeatureWork(
            scorer.run,
            self.checkpoint,
            lambda: scorer.model(scorer.replays[-1]),
            self.methods,
            self.measurements,
            self.source,
            [Projection(seed, lot) for lot in lots],
            [list(blocks_by_layer(sides, lot).values()) for lot in lots],
            scorer.rows(model),
            queries,
        )

    def _whole_layers(
        self, model: nn.Module, sides: dict[str, Sides], whole: Sizes, queries: int
    ) -> list[Sizes]:
        """All layers, in as many lots as memory takes; one where methods take them together."""
        first = next(model.parameters())
        width = torch.promote_types(first.dtype, torch.float32).itemsize
        copies = width * len(self.measurements) * (self.source.parts + 2)
        images = self.scorer.run.size + queries
        room = budget_of(self.scorer.config.compute, first.device) // 2
        lots: list[dict[str, tuple[int, int]]] = [{}]
        held = 0
        parameters = list(whole)
        for place in blocks_by_layer(sides, whole).values():
            need = copies * images * (place.stop - place.start)
            if held and held + need > room:
                lots.append({})
                held = 0
            held += need
            end = place.stop
            while parameters and blocks(sides, whole)[parameters[0]].stop <= end:
                name = parameters.pop(0)
                lots[-1][name] = whole[name]
        if len(lots) > 1 and any(not method.separable for method in self.methods):
            names = ", ".join(method.name for method in self.methods if not method.separable)
            raise RetracError(
                f"whole gradients do not fit into memory for {names}: give --layer-numbers, such "
                "as 256, or raise --memory-budget"
            )
        return list(lots)


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
    if wanted == "visits":
        if known < 2:
            raise RetracError(
                f"{run.path} knows no events of its training, or one of each sample alone: leave "
                "out --draws visits"
            )
        return wanted
    return "visits" if known >= FEWEST else "medium"


def _probe(run: Run, model: nn.Module) -> Tensor:
    """Losses of two samples, for the shapes of gradients."""
    seen: Seen = run.example.repeated(2).on(next(model.parameters()).device)
    timesteps = torch.full((2,), run.timesteps // 2, device=seen.clean.device)
    return run.objective.losses(model, seen, timesteps, torch.ones_like(seen.clean))
