"""Query side and train side at one checkpoint, for whoever combines them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from retrac.allocator import release_freed_memory
from retrac.attribution.asked import Asked
from retrac.attribution.config import TRAINED, AttributeConfig
from retrac.attribution.layer_weights import LayerWeights
from retrac.attribution.memory import Split, rows_within, split_work
from retrac.attribution.methods import Draws, Method
from retrac.attribution.plan import Plan
from retrac.attribution.query_gradients import QueryGradients, query_gradients
from retrac.attribution.replay import Replay, last_events, plan_replays
from retrac.attribution.sample_scores import SampleScores, replayed, sample_scores
from retrac.diffusion.device import choose_device, placed
from retrac.diffusion.lora import LORA_PARAMETERS
from retrac.diffusion.shown import Shown
from retrac.errors import RetracError
from retrac.gradients import Directions, LayerGroups
from retrac.gradients.weights import Weight
from retrac.training.run import Run, choose_checkpoints

GROUPS = 8
"""Groups into which one checkpoint's visits are divided at the most, to show errors."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """A run, and how methods score it that add up events one by one.

    Attributes:
        run: whose samples are scored.
        config: how.
        methods: M of them, with these draws.
        kind: where samples' gradients are taken.
        replays: checkpoints, with the events that stand for each.
        plan: the draws of queries.
        device: where.
        layer_weights: of groups of layers; None where all count alike.
    """

    run: Run
    config: AttributeConfig
    methods: tuple[Method, ...]
    kind: Draws
    replays: tuple[Replay, ...]
    plan: Plan
    device: torch.device
    layer_weights: LayerWeights | None = None

    @staticmethod
    def of(run: Run, config: AttributeConfig, draws: Draws = Draws.INTERVALS) -> "Scorer":
        """Choose checkpoints and events; of the methods those with such draws.

        Raises:
            RetracError: a checkpoint, the device or the weights of layers are not there.
        """
        chosen = choose_checkpoints(run, config.checkpoints)
        device = choose_device(config.compute.device)
        run.encode_on(device)
        replays = (
            (last_events(run, chosen[-1], config.replay_back),)
            if draws is Draws.LAST
            else tuple(plan_replays(run, chosen, config.replay, config.replay_back))
        )
        return Scorer(
            run,
            config,
            tuple(method for method in config.chosen if method.draws is draws),
            draws,
            replays,
            Plan.of(config.plan, run.timesteps),
            device,
            LayerWeights.read(config.layer_weights) if config.layer_weights else None,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the scores, as JSON values."""
        return {
            "methods": [method.name for method in self.methods],
            "records": {method.name: method.identity for method in self.methods},
            "checkpoints": [replay.checkpoint.epoch for replay in self.replays],
            "replay": self.config.replay,
            "parameters": self.pattern,
            **self.config.plan.settings,
            "trained": self.run.identity,
            **_unusual(self.config),
            **self._layer_settings,
        }

    @property
    def _layer_settings(self) -> dict[str, Any]:
        by_layer = {"by_layer": True} if self.config.by_layer else {}
        if self.layer_weights is None:
            return by_layer
        weights = self.layer_weights.by_method
        chosen = {name: dict(weights[name]) for name in self.config.methods if name in weights}
        return {**by_layer, "layer_weights": chosen}

    @property
    def weights(self) -> list[Weight]:
        """The methods' weights of gradients."""
        return [method.weight for method in self.methods]

    @property
    def pattern(self) -> str:
        """Regular expression: found in the names of the parameters that count."""
        return pattern_of(self.run, self.config.parameters)

    @property
    def draws(self) -> int:
        """Gradients per query and checkpoint."""
        return len(self.plan.timesteps) * self.plan.noises

    @property
    def groups(self) -> int:
        """Groups of visits that are told apart: where checkpoints differ, they show errors."""
        return min(GROUPS, len(self.replays[0].epochs)) if len(self.replays) == 1 else 1

    def model(self, replay: Replay) -> nn.Module:
        """Load the network at a checkpoint, with the parameters that count left trainable.

        Raises:
            RetracError: the checkpoint is damaged, or no parameter counts.
        """
        return self._trainable(replay.checkpoint.load(self.run.shape))

    def averaged_model(self, replay: Replay) -> nn.Module:
        """As `model`, with the moving average of the weights where the run has one."""
        return self._trainable(replay.checkpoint.load_averaged(self.run.shape))

    def _trainable(self, network: nn.Module) -> nn.Module:
        model = placed(network, self.device, self.config.compute.precision)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(re.search(self.pattern, name) is not None)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise RetracError(
                f"--parameters {self.config.parameters}: no parameter has such a name; names are "
                f"such as {', '.join(name for name, _ in list(model.named_parameters())[::40])}"
            )
        release_freed_memory()
        return model

    def split(self, model: nn.Module, queries: int) -> Split:
        """Divide the memory budget."""
        return split_work(
            model,
            self.run.objective,
            self.run.example,
            self.plan,
            queries,
            len(self.methods),
            self.config.compute,
        )

    def layers(self, model: nn.Module) -> LayerGroups:
        """The groups of layers of a network that `model` gave."""
        named = dict(model.named_parameters())
        trained = {name for name, parameter in named.items() if parameter.requires_grad}
        return LayerGroups.of(named).of_some(trained)

    def refuse_unfit_weights(self) -> None:
        """Refuse weights of layers that do not fit, before anything is computed.

        Raises:
            RetracError: they are of other methods, parameters or networks.
        """
        if self.layer_weights is None:
            return
        self.layer_weights.refuse_other_parameters(self.pattern)
        names = self.layers(self.model(self.replays[-1])).names
        for method in self.config.methods:
            self.layer_weights.of(method, names)

    def rows(self, model: nn.Module) -> int:
        """Images in a pass that holds no directions."""
        return rows_within(model, self.run.objective, self.run.example, self.config.compute)

    def directions(
        self,
        model: nn.Module,
        replay: Replay,
        asked: Asked,
        ids: Sequence[str],
        split: Split,
        advance: Callable[[int], None],
    ) -> QueryGradients:
        """The query side, for Q images."""
        made = query_gradients(
            model,
            self.run.objective,
            self.plan.at(replay.checkpoint.epoch),
            asked,
            self.weights,
            split,
            ids,
            replay.checkpoint.path.name,
            advance,
        )
        directions = self._weighed(self._turned(made.directions, model, replay), model)
        release_freed_memory()
        return QueryGradients(directions, made.norms)

    def _turned(self, directions: Directions, model: nn.Module, replay: Replay) -> Directions:
        """Directions `[M·Q]` under the methods' metrics."""
        for method, each in zip(self.methods, directions.split(len(self.methods)), strict=True):
            if method.parameter_metric is not None:
                each.take(method.parameter_metric.directions(self, model, replay)(each))
        return directions

    def _weighed(self, directions: Directions, model: nn.Module) -> Directions:
        """Directions `[M·Q]` with each group of layers as heavy as it is to be."""
        if self.layer_weights is None:
            return directions
        groups = self.layers(model)
        for method, each in zip(self.methods, directions.split(len(self.methods)), strict=True):
            weights = self.layer_weights.of(method.name, groups.names)
            each.weigh({name: float(weights[place]) for name, place in groups.place.items()})
        return directions

    def visits(self, replay: Replay, samples: np.ndarray) -> Shown:
        """What training showed the network of some samples, in the epochs that are replayed."""
        return replayed(self.run, replay.epochs, samples)

    def scores(
        self,
        model: nn.Module,
        replay: Replay,
        samples: np.ndarray,
        visits: Shown,
        directions: Directions,
        split: Split,
    ) -> SampleScores:
        """The train side, for some samples."""
        return sample_scores(
            model,
            self.run.objective,
            visits,
            replay,
            samples,
            directions,
            self.weights,
            split.batch,
            self.run.dataset.ids,
            self.groups,
            self.layers(model) if self.config.by_layer else None,
        )


def pattern_of(run: Run, parameters: str) -> str:
    """The regular expression that `--parameters` stands for."""
    if parameters == TRAINED:
        return run.trained
    return {"all": ".*", "lora": LORA_PARAMETERS}.get(parameters, parameters)


def _unusual(config: AttributeConfig) -> dict[str, Any]:
    """Settings that are told only where they are not the usual ones."""
    precision = config.compute.precision
    return {
        **({"replay_back": config.replay_back} if config.replay_back else {}),
        **({} if precision == "float32" else {"precision": precision}),
    }


def stack_visits(
    arrays: Sequence[np.ndarray], weights: Sequence[np.ndarray], fill: float
) -> np.ndarray:
    """Stack `[N, V_k]` of the checkpoints, `[K, N, V]`, filling up unequal V_k on the right.

    Args:
        arrays: of visits.
        weights: for each checkpoint `[N]`; a sample whose visits count nothing had none.
        fill: where there is no visit.
    """
    most = max(array.shape[1] for array in arrays)
    return np.stack(
        [
            np.pad(
                np.where(weight[:, None] > 0, array, fill).astype(array.dtype),
                ((0, 0), (0, most - array.shape[1])),
                constant_values=fill,
            )
            for array, weight in zip(arrays, weights, strict=True)
        ]
    )
