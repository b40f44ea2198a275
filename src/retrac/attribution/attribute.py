"""Attribution: every training sample's score for every query, by checkpoint and method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from retrac.attribution.asked import Queries
from retrac.attribution.attribution import (
    KIND,
    Attribution,
    group_of,
    part_of,
    set_of,
    variable_of,
)
from retrac.attribution.config import (
    CALIBRATION_SETS,
    TRAINED,
    AttributeConfig,
    ComputeConfig,
    FeatureConfig,
    PlanConfig,
    QueryConfig,
    named,
)
from retrac.attribution.engine import Engine, Scores
from retrac.attribution.methods import DEFAULT
from retrac.attribution.parts import Parts, parts_beside
from retrac.attribution.queries import open_queries
from retrac.attribution.scorer import stack_visits
from retrac.attribution.store import open_result, refuse_other
from retrac.files import remove
from retrac.training.run import Run

SHOWN = 20
"""Samples at each end of a query's list whose images are kept with the scores."""


def attribute(
    run: Run,
    queries: Queries | str,
    methods: Sequence[str] = DEFAULT,
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
    features: FeatureConfig | None = None,
    by_layer: bool = False,
    layer_weights: str | Path | None = None,
    from_epoch: int | None = None,
    calibration_sets: int = CALIBRATION_SETS,
    query_seed: int = 0,
    output: str | Path | None = None,
) -> Attribution:
    """Score all training samples of a run for some queries.

    Args:
        run: a training run.
        queries: images, or a text such as "generated:8", "train:16" or a path.
        methods: names of some; those that share a feature share the pass.
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
        features: the draws of methods that compare features.
        by_layer: keep what each part of the network adds to the scores, too.
        layer_weights: a file with the weights of the parts (`LayerWeights`).
        from_epoch: of "unrolled", the checkpoint at which its window begins, by its epoch.
        calibration_sets: of "unrolled", how many random sets the window is replayed without.
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
        features or FeatureConfig(),
        replay_back=replay_back,
        by_layer=by_layer,
        layer_weights=Path(layer_weights) if layer_weights is not None else None,
        from_epoch=from_epoch,
        calibration_sets=calibration_sets,
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
    engine = Engine.of(run, config)
    settings = engine.settings_for(queries)
    if path is not None and path.exists():
        earlier = Attribution(*open_result(path, KIND))
        refuse_other(path, earlier.config, settings)
        remove(parts_beside(path))  # of a run that was stopped just after it had saved
        return earlier
    parts = Parts(path and parts_beside(path), settings)
    scores = engine.scores(queries, parts)
    found = Attribution(_dataset(engine, queries, scores), {**settings, "run": run.facts})
    result = found.with_errors()
    if path is not None:
        result.save(path)
        parts.discard()
    return result


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
    if config.methods != DEFAULT:
        words.append("-".join(config.methods))
    if config.features != FeatureConfig():
        outputs = "" if config.features.outputs else "-loss"
        words.append(f"{config.features.draws}-{config.features.layer_numbers}{outputs}")
    if config.by_layer:
        words.append("by-layer")
    if config.layer_weights is not None:
        words.append(f"weights-{named(config.layer_weights.stem)}")
    if config.exact_top:
        words.append(f"exact-{config.exact_top}")
    if config.from_epoch is not None:
        words.append(f"from-{config.from_epoch}")
    if config.calibration_sets != CALIBRATION_SETS:
        words.append(f"sets-{config.calibration_sets}")
    if until is not None:
        words.append(f"until-{until:g}")
    return "-".join(words)


def _dataset(engine: Engine, queries: Queries, scores: Scores) -> xr.Dataset:
    """Label the numbers."""
    scorer = engine.scorer
    run, replays, plan = scorer.run, scorer.replays, scorer.plan
    dataset, config = run.dataset, scorer.config
    shown = ends(scores.score.sum(1), SHOWN)
    image = ("channel", "row", "column")
    groups = {
        part_of(name): ((group_of(name), "query", "sample"), values.astype(np.float32))
        for name, values in scores.groups.items()
    }
    layers = (
        {
            "layer_score": (
                ("method", "layer", "query", "sample"),
                np.stack([scores.layers[name] for name in config.methods], dtype=np.float32),
            )
        }
        if scores.layers
        else {}
    )
    calibrations = {
        variable_of(name, method): (
            (*(("query", set_of(method)) if values.ndim == 2 else ("query",)),),
            values,
        )
        for method, each in scores.calibrations.items()
        for name, values in vars(each).items()
    }
    masks = {} if queries.masks is None else {"query_mask": (("query", *image[1:]), queries.masks)}
    visits, weights = ("checkpoint", "sample", "visit"), [replay.total for replay in replays]
    if (found := scores.intervals) is not None:
        timesteps = stack_visits(found.timesteps, weights, -1)
        norms = stack_visits(found.norms, weights, np.nan)
        query_norms, moments = found.query_norms, plan.timesteps.numpy()
    else:  # nothing was looked at event by event
        none = (len(replays), len(dataset), 0)
        timesteps, norms = np.zeros(none, np.int64), np.zeros(none, np.float32)
        query_norms, moments = np.zeros((len(replays), len(queries), 0)), np.zeros(0, np.int64)
    return xr.Dataset(
        {
            "score": (("method", "checkpoint", "query", "sample"), scores.score.astype(np.float32)),
            "train_weight": (visits[:2], np.stack(weights)),
            "train_timestep": (visits, timesteps),
            "train_norm": (visits, norms),
            "query_norm": (("checkpoint", "query", "timestep"), query_norms),
            "query_image": (("query", *image), queries.images),
            "sample_image": (("shown", *image), dataset.images[shown]),
            **groups,
            **layers,
            **masks,
            **calibrations,
        },
        coords={
            **({"layer": list(scores.layer_names)} if scores.layers else {}),
            "method": list(config.methods),
            "checkpoint": [replay.checkpoint.epoch for replay in replays],
            "timestep": moments,
            "shown": shown,
            "query_id": ("query", list(queries.ids)),
            "query_label": ("query", list(queries.labels)),
            "sample_id": ("sample", list(dataset.ids)),
            "sample_label": ("sample", list(run.labels)),
            "exact": ("sample", np.isin(np.arange(len(dataset)), scores.exact)),
        },
    )


def ends(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of samples within `count` of either end of some list `[M, Q, N]`, rising."""
    order = np.argsort(scores, axis=2)
    return np.unique(np.concatenate((order[..., :count], order[..., -count:]), axis=2))
