"""Drawing until lists are repeatable: rounds, each with draws and events of its own."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retrac.attribution.asked import Queries
from retrac.attribution.attribute import SHOWN, attribution_of, ends
from retrac.attribution.attribution import KIND, Attribution, group_of, part_of
from retrac.attribution.config import AttributeConfig
from retrac.attribution.engine import Engine
from retrac.attribution.queries import open_queries
from retrac.attribution.scorer import GROUPS
from retrac.attribution.store import open_result, refuse_other
from retrac.attribution.uncertainty import NO_ERROR
from retrac.errors import RetracError
from retrac.files import remove
from retrac.training.run import Run


@dataclass(frozen=True)
class Until:
    """When to stop drawing.

    Attributes:
        share: of the first ten of a query's list that a repeat would give again; the mean over
            queries is to reach it, with every method.
        minutes: no round is begun that would not end within them; the first always is.
    """

    share: float = 0.95
    minutes: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise RetracError(f"--until must be between 0 and 1, such as 0.95, not {self.share}")
        if not 0 < self.minutes < float("inf"):
            raise RetracError(f"--until-minutes must be more than 0, not {self.minutes}")


def attribute_until(
    run: Run,
    queries: Queries | str,
    until: Until | None = None,
    config: AttributeConfig | None = None,
    *,
    query_seed: int = 0,
    output: str | Path | None = None,
) -> Attribution:
    """Attribute in rounds until lists are repeatable, or the time is over; scores are their mean.

    Round r has the plan's seed + r, and replays other events than the rounds before it, as long as
    the interval has some. Checkpoints show errors, as always; a single checkpoint's are shown by
    its events.

    Args:
        run: a training run.
        queries: as for `attribute`.
        until: when to stop.
        config: of the first round.
        query_seed: of generated queries.
        output: a folder for the result. Rounds are kept beside it until they are enough, and taken
            up again: by the same command once it was stopped, for which the time begins anew, and
            by one with more minutes.

    Returns:
        The attribution; `config["until"]` has the `share` asked for, and `config["reached"]` the
        `rounds`, the `repeatability` by method (empty if it cannot be told), whether it was
        `enough`, the `minutes` that were given, and the seconds of the `longest round`.

    Raises:
        RetracError: as `attribute`.
    """
    until, config = until or Until(), config or AttributeConfig()
    if isinstance(queries, str):
        queries = open_queries(run, queries, query_seed, config.compute.device)
    path = Path(output) if output is not None else None
    engine = Engine.of(run, config)
    told: dict[str, Any] = {"until": {"share": until.share}}
    spent = longest = 0.0
    if path is not None and path.exists():
        earlier = Attribution(*open_result(path, KIND))
        refuse_other(path, earlier.config, {**engine.settings_for(queries), **told})
        ended = earlier.config["reached"]
        if ended["enough"] or until.minutes <= ended["minutes"]:
            _forget(path, ended["enough"])  # if it was stopped just after it had saved
            return earlier
        spent, longest = ended["minutes"], ended["longest round"]
    refuse_untold(engine)
    begun = time.monotonic()
    rounds = [_round(run, queries, config, turn, path) for turn in range(max(1, _kept(path)))]
    result = _mean(rounds, run).with_errors()
    longest = max(longest, (time.monotonic() - begun) / len(rounds))
    while not (enough := _enough(result, until)) and (
        time.monotonic() - begun + longest <= 60 * (until.minutes - spent)
    ):
        start = time.monotonic()
        rounds.append(_round(run, queries, config, len(rounds), path))
        result = _mean(rounds, run).with_errors()
        longest = max(longest, time.monotonic() - start)
    told["reached"] = {
        "rounds": len(rounds),
        "repeatability": _repeatability(result),
        "enough": enough,
        "minutes": until.minutes,
        "longest round": longest,
    }
    result = Attribution(result.dataset, {**rounds[0].config, **told})
    if path is not None:
        result.save(path)
        _forget(path, enough)
    return result


def refuse_untold(engine: Engine) -> None:
    """Refuse to wait for what will never be known.

    Raises:
        RetracError: there is one checkpoint whose events cannot be told apart; or the candidates
            that are scored exactly would be others in each round; or a window is looked at.
    """
    if engine.scorer.config.exact_top:
        raise RetracError("--until does not go with --exact-top: each round would have others")
    if engine.unrolled is not None:
        raise RetracError(
            f"--until does not go with {engine.unrolled.methods[0].name}, which is sure or not by "
            "its calibration: leave it out"
        )
    (*others, last) = engine.scorer.replays
    events = engine.scorer.methods and (engine.index is not None or last.checkpoint.epoch == 1)
    draws = any(plan.source.parts < 2 for plan in engine.plans)
    if (not others and events) or (draws and engine.index is not None):
        raise RetracError(NO_ERROR)


def rounds_beside(path: Path) -> Path:
    """Where the rounds of a result at `path` are kept until they are enough."""
    return path.resolve().with_name(path.resolve().name + ".rounds")


def _kept(path: Path | None) -> int:
    """Whole rounds that are there already."""
    return 0 if path is None else len(list(rounds_beside(path).glob("????")))


def _forget(path: Path, enough: bool) -> None:
    """Remove rounds that nobody will go on with."""
    if enough:
        remove(rounds_beside(path))


def _enough(result: Attribution, until: Until) -> bool:
    reached = _repeatability(result)
    return bool(reached) and min(reached.values()) >= until.share


def _round(
    run: Run, queries: Queries, config: AttributeConfig, turn: int, path: Path | None
) -> Attribution:
    replays = not (config.index or config.recorded)
    other = replace(
        config,
        plan=replace(config.plan, plan_seed=config.plan.plan_seed + turn),
        replay_back=config.replay_back + turn if replays else 0,
    )
    return attribution_of(run, queries, other, path and rounds_beside(path) / f"{turn:04d}")


def _repeatability(result: Attribution) -> dict[str, float]:
    """Of each method, the mean over queries; none where errors cannot be told."""
    if "repeatability" not in result.dataset:
        return {}
    means = result.dataset["repeatability"].mean("query").values
    means_of = zip(result.methods, means, strict=True)
    return {method: float(mean) for method, mean in means_of if not np.isnan(mean)}


def _mean(rounds: Sequence[Attribution], run: Run) -> Attribution:
    """The mean of some rounds, with the events of all."""
    data = [each.dataset for each in rounds]
    first = data[0]
    if len(data) == 1:
        return rounds[0]
    score = np.mean([each["score"].values for each in data], 0, dtype=np.float64)
    shown, others = ends(score.sum(1), SHOWN), _by_events(data)
    changed: dict[str, Any] = {
        "score": (first["score"].dims, score.astype(np.float32)),
        "query_norm": (
            first["query_norm"].dims,
            np.mean([each["query_norm"].values for each in data], 0),
        ),
        "sample_image": (("shown", "channel", "row", "column"), run.dataset.images[shown]),
        **{
            name: (first[name].dims, np.mean([each[name].values for each in data], 0))
            for name in ("layer_score",)
            if name in first
        },
        **{
            name: (first[name].dims, np.concatenate([same[0][name].values for same in others], 2))
            for name in ("train_timestep", "train_norm")
        },
    }
    for method in rounds[0].methods:
        if first.sizes["checkpoint"] == 1 or part_of(method) in first:
            parts = _parts(rounds, method)
            changed[part_of(method)] = ((group_of(method), "query", "sample"), parts)
    kept = first.drop_vars([name for name in changed if name in first]).drop_dims("shown")
    return Attribution(kept.assign(changed).assign_coords(shown=shown), rounds[0].config)


def _parts(rounds: Sequence[Attribution], method: str) -> np.ndarray:
    """What independent groups of a method's draws add to the mean of the rounds, `[G, Q, N]`.

    Draws are those of one round or of several, with other draws of queries; each is in one group.
    """
    found: dict[Any, np.ndarray] = {}
    for number, each in enumerate(rounds):
        events = _events(each, method) or number
        found[events] = found.get(events, 0) + each.parts(method) / len(rounds)
    every = np.concatenate(list(found.values()))
    count = min(GROUPS, len(every))
    return np.stack([every[group::count].sum(0) for group in range(count)])


def _events(result: Attribution, method: str) -> bytes:
    """Tells the samples' events of one round from those of another; empty where all rounds have
    others."""
    for feature in result.config.get("features", []):
        if method in feature["methods"]:
            return bytes(str(feature.get("visits", "")), "ascii")
    return result.dataset["train_timestep"].values.tobytes()


def _by_events(data: Sequence[xr.Dataset]) -> list[list[xr.Dataset]]:
    """Rounds that replayed the same events, together."""
    found: dict[bytes, list[xr.Dataset]] = {}
    for each in data:
        found.setdefault(each["train_timestep"].values.tobytes(), []).append(each)
    return list(found.values())
