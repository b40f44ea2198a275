"""What scores will need, by a pass of each kind at one checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.asked import Queries
from retrac.attribution.attribution import KIND
from retrac.attribution.build_index import IndexWork
from retrac.attribution.config import AttributeConfig, ComputeConfig, IndexConfig
from retrac.attribution.costs import Costs, clocked, few, passes
from retrac.attribution.curvature_estimate import estimate_curvature, without_curvature
from retrac.attribution.engine import Engine
from retrac.attribution.exact import ExactWork
from retrac.attribution.feature_estimate import FLOAT, estimate_features
from retrac.attribution.features import silent
from retrac.attribution.indexed import chunk_scores, indexed_part
from retrac.attribution.memory import Split
from retrac.attribution.methods import weight_named
from retrac.attribution.norms import Measure, refuse_unfit
from retrac.attribution.parts import Left, kept_beside
from retrac.attribution.queries import generation_steps, training_samples
from retrac.attribution.query_gradients import QueryGradients
from retrac.attribution.ranking import evenly_spread
from retrac.attribution.scorer import Scorer
from retrac.attribution.self_influence import SelfInfluence, blocks_of, left, settings_of
from retrac.attribution.sketched import query_sketches, sample_sketches
from retrac.attribution.store import open_result, refuse_other
from retrac.attribution.unrolled_estimate import estimate_unrolled
from retrac.diffusion.device import choose_device
from retrac.estimate import Estimate, peak_bytes, scratch, seconds_of
from retrac.store.bins import TIMESTEPS, bin_columns
from retrac.store.feature import StoredFeature
from retrac.store.index import Index
from retrac.store.intervals import INTERVALS, StoredInterval
from retrac.training.estimate import (
    RowCosts,
    estimate_generation,
    interval_row_costs,
    row_costs,
)
from retrac.training.run import Run, choose_checkpoints

REPORT = 100_000
"""Bytes of a report, per query, besides its images."""
REPORTED = 64
"""Images in a report, per query."""


def estimate_attribution(
    run: Run, queries: Queries, config: AttributeConfig, output: Path, generated: int = 0
) -> Estimate | None:
    """Estimate `attribute`.

    Args:
        run: a training run.
        queries: or as many images in their place.
        config: of the scores.
        output: where the result will be.
        generated: how many of the queries are yet to be generated.

    Returns:
        None where little is left to do.

    Raises:
        RetracError: as `attribute`.
    """
    engine = Engine.of(run, config)
    if output.exists():
        earlier = open_result(output, KIND)[1]
        if generated:
            refuse_other(output, earlier, engine.settings, ("queries", "query_guidance", "until"))
        else:
            refuse_other(output, earlier, engine.settings_for(queries), ("until",))
        return None
    there, every = kept_beside(output), np.arange(len(run.dataset))
    found: list[Estimate | None] = []
    if generated:
        found.append(estimate_generation(run, output, generated, 0, generation_steps(run)))
    if engine.index is not None and engine.scorer.methods:
        found.append(_by_index(engine.scorer, queries, engine.index, output))
    elif engine.scorer.methods:
        found.append(_exact(engine.scorer, queries, every, output))
    if engine.last.methods:
        found.append(estimate_curvature(engine.last))
        found.append(_exact(without_curvature(engine.last), queries, every, output))
    found.extend(estimate_features(work, there) for work in engine.works(queries))
    if engine.unrolled is not None:
        found.append(estimate_unrolled(engine.unrolled.work(queries), there))
    total = together(found)
    return None if total is None else total + Estimate(0, 0, _report(run, queries))


def estimate_samples(
    run: Run, queries: Queries, samples: np.ndarray, config: AttributeConfig, output: Path
) -> Estimate | None:
    """Estimate exact scores of some samples alone; None where little is left to do.

    Raises:
        RetracError: as `attribute`.
    """
    scorer = Scorer.of(run, config)
    return _exact(scorer, queries, samples, output) if scorer.methods else None


def estimate_index(run: Run, config: IndexConfig) -> Estimate | None:
    """Estimate `build_index`; None where little is left to do.

    Raises:
        RetracError: as `build_index`.
    """
    work = IndexWork.of(run, config)
    load, model = clocked(lambda: work.scorer.model(work.scorer.replays[-1]))
    batch = work.scorer.rows(model)
    index = work.planned()
    todo = work.left(index)
    if few(passes(todo.visits, batch)):
        return None
    seconds, disk = load * todo.checkpoints, 0.0
    with scratch(index.path) as folder:
        if INTERVALS in index.features:
            left = work.interval_left(index)
            visit, row = _interval_costs(work, index.features[INTERVALS], model, batch, folder)
            seconds += left * visit
            disk += left / len(work.scorer.replays[-1].epochs) * row.disk
        if TIMESTEPS in index.features:
            samples = work.bins_left(index)
            each, row = _bin_costs(work, index.features[TIMESTEPS], model, batch, folder)
            seconds += samples * each
            disk += samples * row.disk
    return Estimate(seconds, peak_bytes(work.scorer.device.type), int(disk))


def _interval_costs(
    work: IndexWork, feature: StoredFeature, model: nn.Module, batch: int, folder: Path
) -> tuple[float, RowCosts]:
    """Seconds of a visit to a sample that is stored, and what a row costs."""
    scorer, run, last = work.scorer, work.scorer.run, work.scorer.replays[-1]
    visits = len(last.epochs)
    samples = _first(run, batch, visits)
    shown = scorer.visits(last, samples)
    weights = [weight_named(name) for name in feature.weights]
    passed = seconds_of(
        lambda: sample_sketches(
            model,
            run.objective,
            shown,
            last,
            samples,
            weights,
            feature.layout.projection,
            batch,
            run.dataset.ids,
        )
    )
    row = interval_row_costs(folder / "interval", feature, len(weights), visits, run.size)
    return passed / (len(samples) * visits) + row.seconds / visits, row


def _bin_costs(
    work: IndexWork, feature: StoredFeature, model: nn.Module, batch: int, folder: Path
) -> tuple[float, RowCosts]:
    """Seconds of a sample whose features in all bins are stored, and what a row costs."""
    run, computed = work.scorer.run, work.plan.computed([feature.layout], batch)
    every = np.arange(run.size)
    bins = range(computed.source.bins)
    draws = sum(computed.source.sample_draws(every, which) for which in bins) / run.size
    some = every[: max(1, round(batch * len(bins) / draws))]
    passed = seconds_of(lambda: computed.of_chunk(some, 0, 0, model, silent))
    row = row_costs(folder / "bins", bin_columns(feature), run.size)
    single = passed / max(1, computed.source.sample_draws(some, 0))
    return single * draws + row.seconds, row


def estimate_self_influence(
    run: Run, samples: Sequence[int] | None, config: AttributeConfig, output: Path
) -> Estimate | None:
    """Estimate `self_influence`; None where little is left to do.

    Raises:
        RetracError: as `self_influence`.
    """
    scorer = Scorer.of(run, config)
    indices = np.arange(len(run.dataset)) if samples is None else np.unique(samples)
    if output.exists():
        refuse_other(output, SelfInfluence.open(output).config, settings_of(scorer, samples))
        return None
    blocks = blocks_of(indices)
    todo = left(scorer, blocks, kept_beside(output))
    model = scorer.model(scorer.replays[-1])
    split = scorer.split(model, len(blocks[0]))
    if few(_exact_passes(todo, split)):
        return None
    some = blocks[0][: split.queries]
    images = training_samples(run, "", [int(index) for index in some])
    costs = _exact_costs(scorer, images, some, split)
    kept = 2 * len(indices) * len(scorer.replays) * FLOAT * len(scorer.methods)
    pixels = len(indices) * prod(run.shape)
    return Estimate(costs.seconds(todo), peak_bytes(scorer.device.type) + pixels, kept + pixels)


def estimate_norms(
    run: Run,
    sample: int,
    timesteps: int,
    samples: int,
    checkpoints: Sequence[int],
    compute: ComputeConfig,
) -> Estimate | None:
    """Estimate `norms`; None where there is little to do.

    Raises:
        RetracError: as `norms`.
    """
    refuse_unfit(run, sample, timesteps, samples)
    chosen, device = choose_checkpoints(run, checkpoints), choose_device(compute.device)
    many = evenly_spread(len(run.dataset), samples)
    visits = (timesteps + 1 + len(many)) * len(chosen)
    load, measure = clocked(
        lambda: Measure(run, chosen[-1], device, compute, lambda done, note: None)
    )
    if few(passes(visits, measure.rows)):
        return None
    some = _first(run, measure.rows, 1)
    inputs = measure.inputs(some)
    ids = [run.dataset.ids[index] for index in some]
    passed = seconds_of(lambda: measure(inputs, ids))
    costs = Costs(load, 0.0, passed / len(some))
    return Estimate(
        costs.seconds(Left(len(chosen), 0, visits)),
        peak_bytes(device.type),
        4 * 8 * visits,
    )


def _exact(scorer: Scorer, queries: Queries, samples: np.ndarray, output: Path) -> Estimate | None:
    there = kept_beside(output)
    work = ExactWork(scorer, queries, samples, there)
    todo = work.left(there)
    if few(_exact_passes(todo, work.split)):
        return None
    last = scorer.replays[-1]
    some = samples[: max(1, work.split.batch // len(last.epochs))]
    costs = _exact_costs(scorer, _some(queries, work.split.queries), some, work.split)
    return _needs(scorer, queries, len(samples), costs.seconds(todo), work.layers)


def _by_index(scorer: Scorer, queries: Queries, index: Index, output: Path) -> Estimate | None:
    run, last, top = scorer.run, scorer.replays[-1], scorer.config.exact_top
    load, model = clocked(lambda: scorer.model(last))
    feature = index.features[INTERVALS]
    rows, stored = scorer.rows(model), StoredInterval(feature, last.checkpoint.epoch)
    chunks = stored.chunks
    there = kept_beside(output)
    checkpoints = sum(indexed_part(replay) not in there for replay in scorer.replays)
    todo = Left(checkpoints, len(queries) * scorer.draws * checkpoints, 0)
    found: list[Estimate | None] = []
    if not few(passes(todo.draws, rows) + len(chunks) * checkpoints):
        weights = [weight.__name__ for weight in scorer.weights]
        short = _shortened(scorer, max(1, rows // scorer.plan.noises))
        first = _some(queries, max(1, rows // short.draws))

        def directions() -> Tensor:
            return query_sketches(
                model,
                run.objective,
                short.plan,
                first.asked(run, short.plan),
                scorer.weights,
                feature.layout.projection,
                rows,
                first.ids,
                last.checkpoint.path.name,
            )[0]

        drawn = seconds_of(directions) / (short.draws * len(first))
        every = torch.zeros(len(weights), len(queries), feature.layout.size)
        read = seconds_of(lambda: chunk_scores(stored, chunks[0], weights, every))
        costs = Costs(load + len(chunks) * read, drawn, 0.0)
        found.append(_needs(scorer, queries, len(run.dataset), costs.seconds(todo)))
    if top:
        lists = len(scorer.methods) * len(queries)
        candidates = np.arange(distinct(len(run.dataset), top, lists))
        found.append(_exact(scorer, queries, candidates, output))
    return together(found)


def distinct(samples: int, top: int, lists: int) -> int:
    """How many samples are in some of the lists' first `top`, if lists have nothing in common."""
    return round(samples * (1 - max(0.0, 1 - top / samples) ** lists))


def _exact_costs(scorer: Scorer, queries: Queries, samples: np.ndarray, split: Split) -> Costs:
    """Of a block of queries and a batch of samples."""
    last = scorer.replays[-1]
    load, model = clocked(lambda: scorer.model(last))
    short = _shortened(scorer, split.timesteps)
    first = _some(queries, max(1, split.timesteps // len(short.plan.timesteps)))

    def directions(plan: Scorer, asked: Queries) -> QueryGradients:
        return plan.directions(
            model, last, asked.asked(plan.run, plan.plan), asked.ids, split, lambda timesteps: None
        )

    drawn = seconds_of(lambda: directions(short, first)) / (short.draws * len(first))
    # As many directions as there will be, each at the price of one draw.
    single = replace(
        scorer, plan=replace(scorer.plan, timesteps=short.plan.timesteps[:1], noises=1)
    )
    against = directions(single, queries).directions
    visits = scorer.visits(last, samples)
    passed = seconds_of(lambda: scorer.scores(model, last, samples, visits, against, split))
    return Costs(load, drawn, passed / visits.size)


def _exact_passes(todo: Left, split: Split) -> float:
    draws = split.timesteps * split.noises
    return passes(todo.draws, draws) + passes(todo.visits, split.batch)


def _needs(
    scorer: Scorer, queries: Queries, samples: int, seconds: float, layers: int = 0
) -> Estimate:
    """With the memory and space that scores take, as pieces and as a whole."""
    visits = sum(len(replay.epochs) for replay in scorer.replays)
    kept = len(scorer.replays) + 1 + (scorer.groups if scorer.groups > 1 else 0)  # with errors
    kept += layers * (len(scorer.replays) + 1)
    pairs = len(scorer.methods) * kept * len(queries) * samples
    scores = FLOAT * pairs + 3 * FLOAT * visits * samples
    return Estimate(seconds, peak_bytes(scorer.device.type) + 3 * scores, 2 * scores)


def _report(run: Run, queries: Queries) -> int:
    """Bytes of the page."""
    return len(queries) * (REPORT + REPORTED * prod(run.shape))


def _shortened(scorer: Scorer, timesteps: int) -> Scorer:
    """With a plan of fewer timesteps."""
    return replace(scorer, plan=replace(scorer.plan, timesteps=scorer.plan.timesteps[:timesteps]))


def _some(queries: Queries, count: int) -> Queries:
    return queries.take(range(len(queries))[:count])


def _first(run: Run, batch: int, visits: int) -> np.ndarray:
    """The first samples, as many as have a batch of visits."""
    return np.arange(min(len(run.dataset), max(1, batch // visits)))


def together(parts: Sequence[Estimate | None]) -> Estimate | None:
    """One after the other; None where each is."""
    found = [part for part in parts if part is not None]
    return sum(found[1:], found[0]) if found else None
