"""Making an index of a run, and answering queries from one."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrac.attribution.ahead import ahead
from retrac.attribution.asked import Queries
from retrac.attribution.config import TRAINED, AttributeConfig, IndexConfig
from retrac.attribution.exact import Scored
from retrac.attribution.methods import Method, by_events
from retrac.attribution.parts import Left, Parts
from retrac.attribution.replay import Replay
from retrac.attribution.sample_scores import replayed, samples_in_piece
from retrac.attribution.scorer import Scorer, pattern_of
from retrac.attribution.sketched import query_sketches, sample_sketches
from retrac.errors import RetracError
from retrac.gradients.allocation import Sides, measure_sides
from retrac.gradients.weights import WEIGHTS
from retrac.progress import progress
from retrac.training.index import CONFIG, Index, IndexedCheckpoint, laid_out, pilot
from retrac.training.recording import RECORDED
from retrac.training.run import Run
from retrac.training.trained import TrainedRun

INDEX = "index"
"""Folder of a run's index."""
INTERVALS = " (each in it stands for the epochs since the one before: none can be left out)"
"""Why an index does not answer for some of its checkpoints."""


def build_index(run: Run, config: IndexConfig | None = None) -> Index:
    """Sketch every sample's replayed gradients at every checkpoint, into `RUN/index`.

    Stopped at any moment, the same call goes on. After further training, it adds the checkpoints
    that are new; the sizes of sketches stay those that were laid out for the first ones.

    Args:
        run: a training run.
        config: what is indexed.

    Raises:
        RetracError: the run has an index of other settings, a checkpoint is missing, the dataset
            has changed, a gradient is not finite, too little memory or space.
    """
    config = config or IndexConfig()
    scorer = index_scorer(run, config)
    index = begin_index(scorer, config)
    index.save()
    samples = len(run.dataset)
    total = samples * sum(len(replay.epochs) for replay in scorer.replays)
    with progress("index", total, "gradients") as advance:
        for replay in scorer.replays:
            visits = len(replay.epochs)
            part = index.checkpoint(replay.checkpoint.epoch)
            if not (part.path / "done.zarr").is_dir():
                size, chunk = int(index.config["size"]), samples_in_piece(run.shape, visits)
                part = IndexedCheckpoint.create(
                    part.path, tuple(WEIGHTS), samples, size, visits, chunk
                )
            missing = part.missing
            there = samples - sum(piece.stop - piece.start for piece in missing)
            advance(there * visits, note=f"epoch {replay.checkpoint.epoch}")
            if not missing:
                continue
            model = scorer.model(replay)
            batch = scorer.rows(model)
            loaded = ahead(missing, lambda piece: scorer.visits(replay, _range(piece)))  # noqa: B023
            for piece, shown in loaded:
                rows = sample_sketches(
                    model,
                    run.objective,
                    shown,
                    replay,
                    _range(piece),
                    tuple(WEIGHTS.values()),
                    index.projection,
                    batch,
                    run.dataset.ids,
                )
                part.write(piece, rows)
                advance((piece.stop - piece.start) * visits)
    return index


def index_scorer(run: Run, config: IndexConfig) -> Scorer:
    """What computes an index: every method, at the replayed visits.

    Raises:
        RetracError: the run has an index of other settings, or a checkpoint or the device is not
            there.
    """
    scorer = Scorer.of(
        run,
        AttributeConfig(
            methods=tuple(method.name for method in by_events()),
            checkpoints=config.checkpoints,
            replay=config.replay,
            parameters=config.parameters,
            compute=config.compute,
        ),
    )
    _found_index(scorer, config)
    return scorer


def index_left(scorer: Scorer, path: Path) -> Left:
    """What the index in a folder lacks."""
    visits = [
        sum(piece.stop - piece.start for piece in _missing(scorer, path, replay))
        * len(replay.epochs)
        for replay in scorer.replays
    ]
    return Left(checkpoints=sum(count > 0 for count in visits), draws=0, visits=sum(visits))


def open_index(run: Run, config: AttributeConfig) -> Index:
    """Open a run's index or recording, for queries.

    Raises:
        RetracError: there is none, it is not whole, is of another training, lacks a method, or
            other checkpoints, replay or parameters are asked for.
    """
    path = run.path / (RECORDED if config.recorded else INDEX)
    if not (path / CONFIG).is_file():
        made = "`retrac train --record`" if config.recorded else "`retrac index`"
        raise RetracError(f"{run.path} has no {path.name!r} folder: make it with {made}")
    index = Index.open(path)
    index.refuse_other_training(_recorded(run) if config.recorded else run.identity)
    asked = {
        "checkpoints": sorted(set(config.checkpoints)),
        "replay": config.replay != "last" and config.replay,
        "parameters": config.parameters != TRAINED and pattern_of(run, config.parameters),
    }
    there = {"checkpoints": index.epochs, **index.config}
    for name, value in asked.items():
        if value and value != there[name]:
            raise RetracError(
                f"{path} has --{name} {there[name]}, not {value}: leave the option out, or make "
                f"another index{INTERVALS if name == 'checkpoints' else ''}"
            )
    index.require(index.config.get("checkpoints", [point.epoch for point in run.checkpoints]))
    return index


def as_indexed(config: AttributeConfig, index: Index) -> AttributeConfig:
    """The same settings, with those that the index has decided."""
    return replace(
        config,
        checkpoints=tuple(index.epochs),
        replay=str(index.config["replay"]),
        parameters=str(index.config["parameters"]),
    )


def indexed_part(replay: Replay) -> str:
    """Name of the piece that holds a checkpoint's scores by the index."""
    return f"epoch-{replay.checkpoint.epoch:04d}-index"


def index_scores(scorer: Scorer, index: Index, queries: Queries, parts: Parts) -> Scored:
    """Estimate all samples' scores by inner products of sketches.

    Checkpoints whose scores are there are not computed again.
    """
    run, weights = scorer.run, scorer.weights
    rows = stored_under(index, scorer.methods)
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
                weights,
                index.projection,
                scorer.rows(model),
                queries.ids,
                replay.checkpoint.path.name,
                advance,
            )
            part = index.checkpoint(replay.checkpoint.epoch)
            found = [piece_scores(part, piece, rows, directions) for piece in part.chunks]
            parts.put(
                indexed_part(replay),
                {
                    "scores": np.concatenate([score for score, _, _ in found], axis=2),
                    "norms": np.concatenate([norm for _, norm, _ in found]),
                    "timesteps": np.concatenate([timestep for _, _, timestep in found]),
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


def stored_under(index: Index, methods: Sequence[Method]) -> list[int]:
    """Places in an index of the methods' weights.

    Raises:
        RetracError: it lacks one, or a method takes more than products of sketches.
    """
    for method in methods:
        if method.parameter_metric is not None or method.weight.__name__ not in index.weights:
            raise RetracError(
                f"{index.path} does not hold what {method.name!r} needs: score it without --index"
            )
    return [index.weights.index(method.weight.__name__) for method in methods]


def piece_scores(
    part: IndexedCheckpoint, piece: slice, weights: Sequence[int], directions: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores `[M, Q, S]` of one piece of an index, with the norms and timesteps of its visits."""
    read = part.read(piece)
    sketches = torch.from_numpy(read.sketches[weights])
    return (
        torch.einsum("mqd,msd->mqs", directions, sketches).numpy(),
        read.norms,
        read.timesteps,
    )


def begin_index(scorer: Scorer, config: IndexConfig) -> Index:
    """A run's index as it will be, laid out if there is none; nothing is written.

    Raises:
        RetracError: it has one of other settings.
    """
    return _found_index(scorer, config) or Index.planned(
        scorer.run.path / INDEX,
        {**_settings(scorer, config), **lay_out(scorer, scorer.replays, config.sketch_size)},
    )


def lay_out(scorer: Scorer, replays: Sequence[Replay], asked: int) -> dict[str, Any]:
    """Lay sketches out by where gradients are at some checkpoints; as `laid_out` says it."""
    by_checkpoint = [_sides(scorer, replay) for replay in replays]
    first = by_checkpoint[0]
    sides = {
        name: Sides(
            first[name].copies,
            first[name].inputs,
            first[name].outputs,
            float(np.mean([found[name].share for found in by_checkpoint])),
        )
        for name in first
    }
    return laid_out(sides, asked)


def _recorded(run: Run) -> str:
    """What a recording knows of its training."""
    return run.origin if isinstance(run, TrainedRun) else run.identity


def _found_index(scorer: Scorer, config: IndexConfig) -> Index | None:
    return Index.found(scorer.run.path / INDEX, _settings(scorer, config))


def _settings(scorer: Scorer, config: IndexConfig) -> dict[str, Any]:
    precision = config.compute.precision
    return {
        "kind": "replayed",
        "trained": scorer.run.identity,
        "checkpoints": [replay.checkpoint.epoch for replay in scorer.replays],
        "weights": list(WEIGHTS),
        "replay": config.replay,
        "parameters": pattern_of(scorer.run, config.parameters),
        "seed": scorer.run.ledger.seed,
        "asked": config.sketch_size,
        **({} if precision == "float32" else {"precision": precision}),
    }


def _sides(scorer: Scorer, replay: Replay) -> dict[str, Sides]:
    model, run = scorer.model(replay), scorer.run
    shown = replayed(run, replay.epochs[-1:], pilot(len(run.dataset)))
    parts = shown.on(scorer.device).split(scorer.rows(model))
    passes = [partial(run.objective.losses, model, *part) for part in parts]
    return measure_sides(model, *passes)


def _missing(scorer: Scorer, path: Path, replay: Replay) -> list[slice]:
    part = IndexedCheckpoint(path / f"epoch-{replay.checkpoint.epoch:04d}", tuple(WEIGHTS))
    begun = (part.path / "done.zarr").is_dir()
    return part.missing if begun else [slice(0, len(scorer.run.dataset))]


def _range(piece: slice) -> np.ndarray:
    return np.arange(piece.start, piece.stop)
