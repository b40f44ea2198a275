"""Answering queries from a run's index or recording."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.asked import Queries
from retrac.attribution.config import TRAINED, AttributeConfig
from retrac.attribution.exact import Scored
from retrac.attribution.methods import DEFAULT, Draws, Method
from retrac.attribution.parts import Parts
from retrac.attribution.replay import Replay
from retrac.attribution.scorer import Scorer, pattern_of
from retrac.attribution.sketched import query_sketches
from retrac.attribution.stored_plan import last_sums
from retrac.errors import RetracError
from retrac.gradients.sketch_layout import SketchLayout
from retrac.progress import progress
from retrac.store.bins import TIMESTEPS
from retrac.store.index import CONFIG, Index
from retrac.store.intervals import INTERVALS, StoredInterval
from retrac.training.recording import RECORDED
from retrac.training.run import Run
from retrac.training.trained import TrainedRun

INDEX = "index"
"""Folder of a run's index."""
TOGETHER = " (each in it stands for the epochs since the one before: none can be left out)"
"""Why an index does not answer for some of its checkpoints."""


def open_index(run: Run, config: AttributeConfig) -> Index:
    """Open a run's index or recording, for queries.

    Raises:
        RetracError: there is none, it is not whole, is of another training, lacks what a method
            needs, or other checkpoints, replay or parameters are asked for.
    """
    path = run.path / (RECORDED if config.recorded else INDEX)
    if not (path / CONFIG).is_file():
        made = "`retrac train --record`" if config.recorded else "`retrac index`"
        raise RetracError(f"{run.path} has no {path.name!r} folder: make it with {made}")
    index = Index.open(path)
    index.refuse_other_training(_recorded(run) if config.recorded else run.identity)
    settled = as_indexed(config, index, run)
    wanted = {
        "checkpoints": sorted(set(config.checkpoints)),
        "replay": config.replay != "last" and config.replay,
        "parameters": config.parameters != TRAINED and pattern_of(run, config.parameters),
    }
    there = {
        "checkpoints": list(settled.checkpoints),
        "replay": settled.replay,
        "parameters": settled.parameters,
    }
    for name, value in wanted.items():
        if value and value != there[name]:
            raise RetracError(
                f"{path} has --{name} {there[name]}, not {value}: leave the option out, or make "
                f"another index{TOGETHER if name == 'checkpoints' else ''}"
            )
    _require(index, settled)
    return index


def as_indexed(config: AttributeConfig, index: Index, run: Run) -> AttributeConfig:
    """The same settings, with those that the index has decided.

    Raises:
        RetracError: it lacks what a method needs.
    """
    features = index.features
    if INTERVALS in features:
        recorded = [point.epoch for point in run.checkpoints]
        checkpoints = features[INTERVALS].config.get("checkpoints", recorded)
        replay = str(features[INTERVALS].config["replay"])
    else:
        checkpoints, replay = [features[TIMESTEPS].config["at"]], config.replay
    return replace(
        config,
        methods=_answered(config, index),
        checkpoints=tuple(checkpoints),
        replay=replay,
        parameters=str(index.config["parameters"]),
    )


def _answered(config: AttributeConfig, index: Index) -> tuple[str, ...]:
    """Names of the chosen methods that an index answers; without a choice, of those that it can.

    Raises:
        RetracError: it lacks what one of them needs.
    """
    lacking = [method.name for method in config.chosen if not answers(index, method)]
    answered = tuple(name for name in config.methods if name not in lacking)
    if lacking and (config.methods != DEFAULT or not answered):
        option = "--recorded" if config.recorded else "--index"
        raise RetracError(
            f"{index.path} does not hold what {', '.join(map(repr, lacking))} needs: score it "
            f"without {option}"
        )
    return answered


def answers(index: Index, method: Method) -> bool:
    """Whether an index holds what a method needs."""
    feature = index.features.get(method.draws.value)
    return (
        feature is not None
        and method.parameter_metric is None
        and method.weight.__name__ in feature.weights
        and any(each.__name__ in feature.config["measurements"] for each in method.measurements)
    )


def _require(index: Index, settled: AttributeConfig) -> None:
    """Refuse an index that is not whole for these methods.

    Raises:
        RetracError: it is not.
    """
    for method in settled.chosen:
        feature = index.features[method.draws.value]
        checkpoints = settled.checkpoints
        if method.draws is Draws.TIMESTEPS:
            checkpoints = last_sums(feature, checkpoints)
        feature.require(checkpoints, method.weight.__name__)


def indexed_part(replay: Replay) -> str:
    """Name of the piece that holds a checkpoint's scores by the index."""
    return f"epoch-{replay.checkpoint.epoch:04d}-index"


def index_scores(scorer: Scorer, index: Index, queries: Queries, parts: Parts) -> Scored:
    """Estimate all samples' scores by inner products of sketches.

    Checkpoints whose scores are there are not computed again.
    """
    run, feature = scorer.run, index.features[INTERVALS]
    names = [method.weight.__name__ for method in scorer.methods]
    each = len(queries) * scorer.draws
    with progress("attribute", each * len(scorer.replays), "gradients") as advance:
        for replay in scorer.replays:
            if indexed_part(replay) in parts:
                advance(each)
                continue
            model = scorer.model(replay)
            directions, by_timestep = query_sketches(
                model,
                run.objective,
                scorer.plan.at(replay.checkpoint.epoch),
                queries.asked(run, scorer.plan),
                scorer.weights,
                feature.layout.projection,
                scorer.rows(model),
                queries.ids,
                replay.checkpoint.path.name,
                advance,
            )
            directions = _weighed(directions, scorer, model, feature.layout)
            stored = StoredInterval(feature, replay.checkpoint.epoch)
            scored = [chunk_scores(stored, chunk, names, directions) for chunk in stored.chunks]
            parts.put(
                indexed_part(replay),
                {
                    "scores": np.concatenate([score for score, _, _ in scored], axis=2),
                    "norms": np.concatenate([norm for _, norm, _ in scored]),
                    "timesteps": np.concatenate([timestep for _, _, timestep in scored]),
                    "query_norms": by_timestep.numpy(),
                },
            )
    done = [parts.get(indexed_part(replay)) for replay in scorer.replays]
    return Scored(
        np.stack([part["scores"] for part in done], axis=1),
        [part["norms"] for part in done],
        [part["timesteps"] for part in done],
        np.stack([part["query_norms"] for part in done]),
    )


def _weighed(directions: Tensor, scorer: Scorer, model: nn.Module, layout: SketchLayout) -> Tensor:
    """Sketches of directions `[M, Q, d]` with each group of layers as heavy as it is to be."""
    if scorer.layer_weights is None:
        return directions
    groups = scorer.layers(model)
    places = [groups.place[first] for first in layout.first_parameters]
    found = [scorer.layer_weights.of(method.name, groups.names) for method in scorer.methods]
    return (
        directions
        * torch.from_numpy(np.repeat(np.stack(found)[:, places], layout.widths, 1))[:, None]
    )


def chunk_scores(
    stored: StoredInterval, chunk: slice, weights: Sequence[str], directions: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores `[M, Q, S]` of one chunk of samples, with the norms and timesteps of their visits.

    Args:
        stored: sums at one checkpoint.
        chunk: of them.
        weights: M names, of the methods' weights.
        directions: `[M, Q, d]`.
    """
    rows = stored.read(chunk, weights)
    scores = [
        direction @ torch.from_numpy(rows.sums[name]).mT
        for name, direction in zip(weights, directions, strict=True)
    ]
    return torch.stack(scores).numpy(), rows.norms, rows.timesteps


def _recorded(run: Run) -> str:
    """What a recording knows of its training."""
    return run.origin if isinstance(run, TrainedRun) else run.identity
