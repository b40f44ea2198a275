"""What scores by features will need: a pass of queries and of samples, and each metric's fit."""

from collections.abc import Container, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from retrac.attribution.costs import Costs, clocked, few, passes
from retrac.attribution.feature_work import FeatureWork, products, turned_queries
from retrac.attribution.features import silent
from retrac.attribution.methods import Method
from retrac.attribution.parts import Parts
from retrac.attribution.sample_features import CHUNK, ComputedFeatures
from retrac.estimate import Estimate, peak_bytes, seconds_of

FLOAT = 4
FITTED = 4096
"""Samples to which a metric is fitted at the most, to see how long that takes."""


def estimate_features(work: FeatureWork, there: Container[str]) -> Estimate | None:
    """Estimate the work of methods that share a feature; None where little is left to do.

    Args:
        work: for some queries.
        there: names of the pieces that are there.
    """
    todo, bins = work.left(there), work.bins_left(there)
    if few(passes(todo.draws + todo.visits, work.rows)):
        return None
    load, model = clocked(work.load)
    every, source = np.arange(work.run.size), work.source
    which = max(range(source.bins), key=lambda which: source.sample_draws(every, which))
    samples = every[: max(1, work.rows * len(every) // source.sample_draws(every, which))][:CHUNK]
    queries = work.queries.take(range(len(work.queries))[: max(1, work.rows // source.query_draws)])
    part = replace(work, queries=queries)
    drawn = seconds_of(lambda: part.of_queries(model, which, 0, silent))
    visited = read = 0.0
    if isinstance(computed := work.samples, ComputedFeatures):
        visited = seconds_of(lambda: computed.of_chunk(samples, which, 0, model, silent))
    else:
        read, _ = clocked(lambda: work.samples.read("", which, 0, model, Parts(None, {}), silent))
    costs = Costs(
        load,
        drawn / (len(queries) * source.query_draws),
        visited / max(1, source.sample_draws(samples, which)),
    )
    seconds = costs.seconds(todo) + bins * (read + _fit_seconds(work))
    device = next(model.parameters()).device.type
    return Estimate(seconds, peak_bytes(device) + _memory(work), _disk(work))


def _fit_seconds(work: FeatureWork) -> float:
    """Of all metrics in one bin: for each lot of layers, measurement, and part left out."""
    size, layers = work.run.size, work.lots[0].layers
    numbers, fitted = work.lots[0].size, min(size, FITTED)
    stream = torch.Generator().manual_seed(0)
    samples, queries = (
        torch.randn(1, count, numbers, generator=stream) for count in (fitted, len(work.queries))
    )
    seconds = 0.0
    for method in work.methods:
        widest = max(layer.stop - layer.start for layer in layers)
        block = widest if method.separable else numbers
        larger = size * min(size, block) / (fitted * min(fitted, block))
        seconds += larger * seconds_of(partial(_scored, method, queries, samples, layers))
    lots = sum(lot.size for lot in work.lots) / numbers
    return lots * len(work.measurements) * work.variants * seconds


def _scored(method: Method, queries: Tensor, samples: Tensor, layers: Sequence[slice]) -> Tensor:
    return products(method, turned_queries(method, queries, samples, layers), samples)


def _memory(work: FeatureWork) -> int:
    """Features of one bin and one lot, while pieces are joined or a part of them is left out."""
    parts, images = work.source.parts, work.run.size + len(work.queries)
    numbers = max(lot.size for lot in work.lots)
    copies = max(2 * parts, parts + 3)
    return FLOAT * len(work.measurements) * copies * images * numbers


def _disk(work: FeatureWork) -> int:
    """Pieces of one bin, the scores of every bin, and what is made of these."""
    numbers = sum(lot.size for lot in work.lots)
    computed = isinstance(work.samples, ComputedFeatures)
    pieces = computed * len(work.measurements) * work.source.parts * work.run.size * numbers
    pairs = len(work.methods) * len(work.queries) * work.run.size
    layers = len(work.layer_groups.names) if work.by_layer else 0
    bins = work.source.bins * (work.variants + layers) * pairs
    return FLOAT * (pieces + bins + (work.variants + layers + 2) * pairs)
