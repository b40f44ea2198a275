"""Attribution: every training sample's score for every query, by checkpoint and method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retrac.attribution.asked import Queries
from retrac.attribution.attribution import KIND, Attribution
from retrac.attribution.config import (
    TRAINED,
    AttributeConfig,
    ComputeConfig,
    PlanConfig,
    QueryConfig,
    named,
)
from retrac.attribution.exact import Scored, exact_scores
from retrac.attribution.indexed import as_indexed, index_scores, open_index
from retrac.attribution.parts import Parts, parts_beside
from retrac.attribution.queries import open_queries
from retrac.attribution.scorer import Scorer, stack_visits
from retrac.attribution.store import open_result, refuse_other
from retrac.files import remove
from retrac.fingerprints import digest
from retrac.training.index import Index
from retrac.training.run import Run

PART = ("method", "group", "query", "sample")
SHOWN = 20
"""Samples at each end of a query's list whose images are kept with the scores."""


def attribute(
    run: Run,
    queries: Queries | str,
    methods: Sequence[str] = ("tracin", "retrac"),
    *,
    checkpoints: Sequence[int] = (),
    replay: str | int = "last",
    replay_back: int = 0,
    parameters: str = TRAINED,
    plan: PlanConfig | None = None,
    compute: ComputeConfig | None = None,
    index: bool = False,
    recorded: bool = False,
    exact_top: int = 0,
    query_seed: int = 0,
    output: str | Path | None = None,
) -> Attribution:
    """Score all training samples of a run for some queries (Xie et al. 2024, eq. 4 and 7).

    Args:
        run: a training run.
        queries: images, or a text such as "generated:8", "train:16" or a path.
        methods: "tracin", "retrac" or both, at no extra cost.
        checkpoints: epochs of the checkpoints to use; all by default.
        replay: epochs of each interval to replay: "last", "all", or a number.
        replay_back: number of the choice of epochs; each has others, as long as there are some.
        parameters: "trained", "all", "lora", or a regular expression that is found in the names of
            those that count.
        plan: the draws at which queries are looked at.
        compute: device and memory.
        index: answer from the run's index, whose checkpoints, replay and parameters count.
        recorded: answer from what was recorded while training.
        exact_top: with an index, score so many best candidates of each query and method exactly.
        query_seed: of generated queries.
        output: a folder for the result. Interrupted work is kept beside it and taken up again;
            a result of the same settings that is already there is opened.

    Raises:
        RetracError: unknown method, missing checkpoint or index, changed dataset, non-finite
            gradient, too little memory or space, or `output` holds something else.
    """
    config = AttributeConfig(
        tuple(methods),
        tuple(checkpoints),
        str(replay),
        parameters,
        plan or PlanConfig(),
        compute or ComputeConfig(),
        index,
        recorded,
        exact_top,
        replay_back=replay_back,
    )
    if isinstance(queries, str):
        queries = open_queries(run, queries, query_seed, config.compute.device)
    return attribution_of(run, queries, config, Path(output) if output is not None else None)


def attribution_of(
    run: Run, queries: Queries, config: AttributeConfig, path: Path | None = None
) -> Attribution:
    """As `attribute`, with all settings in one object.

    Raises:
        RetracError: as `attribute`.
    """
    way = Way.of(run, config)
    scorer = way.scorer
    settings = way.settings_for(queries)
    if path is not None and path.exists():
        earlier = Attribution(*open_result(path, KIND))
        refuse_other(path, earlier.config, settings)
        remove(parts_beside(path))  # of a run that was stopped just after it had saved
        return earlier
    parts = Parts(path and parts_beside(path), settings)
    every = np.arange(len(run.dataset))
    if way.index is None:
        scored, exact = exact_scores(scorer, queries, every, parts), every
    else:
        scored, exact = _by_index(scorer, queries, way.index, config.exact_top, parts)
    found = Attribution(_dataset(scorer, queries, scored, exact), {**settings, "run": run.facts})
    result = found.with_errors()
    if path is not None:
        result.save(path)
        parts.discard()
    return result


@dataclass(frozen=True, eq=False)
class Way:
    """How scores will be found: exactly, or from an index."""

    scorer: Scorer
    index: Index | None

    @staticmethod
    def of(run: Run, config: AttributeConfig) -> "Way":
        """Open what it takes.

        Raises:
            RetracError: a checkpoint, the device or the index is not there.
        """
        if not (config.index or config.recorded):
            return Way(Scorer.of(run, config), None)
        index = open_index(run, config)
        return Way(Scorer.of(run, as_indexed(config, index)), index)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the scores of whatever is asked, as JSON values."""
        if self.index is None:
            return self.scorer.settings
        told = {name: self.index.config[name] for name in ("kind", "size", "seed")}
        told["sizes"] = digest(self.index.config["sizes"])
        return {**self.scorer.settings, "index": told, "exact_top": self.scorer.config.exact_top}

    def settings_for(self, queries: Queries) -> dict[str, Any]:
        """With what is asked."""
        told = [list(queries.labels)] if self.scorer.run.told else []
        guided = {"query_guidance": queries.guidance} if queries.guidance != 1 else {}
        return {**self.settings, "queries": digest(*queries.told, *told), **guided}


def default_name(
    queries: str, asked: QueryConfig, config: AttributeConfig, until: float | None = None
) -> str:
    """A result's folder: what was asked, and the way, so that one way's stands beside another's."""
    words = [queries, *asked.words]
    if config.plan.plan != "default":
        words.append(config.plan.plan)
    if config.replay != "last":
        words.append(f"replay-{config.replay}")
    if config.replay_back:
        words.append(f"back-{config.replay_back}")
    if config.parameters != TRAINED:
        words.append(f"parameters-{named(config.parameters)}")
    if config.compute.precision != "float32":
        words.append(config.compute.precision)
    if config.index or config.recorded:
        words.append("index" if config.index else "recorded")
    if config.exact_top:
        words.append(f"exact-{config.exact_top}")
    if until is not None:
        words.append(f"until-{until:g}")
    return "-".join(words)


def _by_index(
    scorer: Scorer, queries: Queries, index: Index, top: int, parts: Parts
) -> tuple[Scored, np.ndarray]:
    """Scores by the index, but exact ones for the best candidates; which those are."""
    scored = index_scores(scorer, index, queries, parts)
    if top == 0:
        return scored, np.array([], int)
    order = np.argsort(-scored.score.sum(1), axis=2, kind="stable")
    candidates = np.unique(order[..., :top])
    again = exact_scores(scorer, queries, candidates, parts)
    score = scored.score.copy()
    score[..., candidates] = again.score
    return replace(scored, score=score), candidates


def _dataset(scorer: Scorer, queries: Queries, scored: Scored, exact: np.ndarray) -> xr.Dataset:
    """Label the numbers; `exact` are the samples whose scores are not estimates."""
    run, replays, plan = scorer.run, scorer.replays, scorer.plan
    dataset = run.dataset
    shown = ends(scored.score.sum(1), SHOWN)
    image = ("channel", "row", "column")
    groups = {} if scored.groups is None else {"part": (PART, scored.groups)}
    masks = {} if queries.masks is None else {"query_mask": (("query", *image[1:]), queries.masks)}
    visits, weights = ("checkpoint", "sample", "visit"), [replay.total for replay in replays]
    return xr.Dataset(
        {
            "score": (("method", "checkpoint", "query", "sample"), scored.score),
            "train_weight": (visits[:2], np.stack(weights)),
            "train_timestep": (visits, stack_visits(scored.timesteps, weights, -1)),
            "train_norm": (visits, stack_visits(scored.norms, weights, np.nan)),
            "query_norm": (("checkpoint", "query", "timestep"), scored.query_norms),
            "query_image": (("query", *image), queries.images),
            "sample_image": (("shown", *image), dataset.images[shown]),
            **groups,
            **masks,
        },
        coords={
            "method": list(scorer.config.methods),
            "checkpoint": [replay.checkpoint.epoch for replay in replays],
            "timestep": plan.timesteps.numpy(),
            "shown": shown,
            "query_id": ("query", list(queries.ids)),
            "query_label": ("query", list(queries.labels)),
            "sample_id": ("sample", list(dataset.ids)),
            "sample_label": ("sample", list(run.labels)),
            "exact": ("sample", np.isin(np.arange(len(dataset)), exact)),
        },
    )


def ends(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of samples within `count` of either end of some list `[M, Q, N]`, rising."""
    order = np.argsort(scores, axis=2)
    return np.unique(np.concatenate((order[..., :count], order[..., -count:]), axis=2))
