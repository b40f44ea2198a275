"""Drawing until lists are repeatable: rounds, each with draws and events of its own."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retrac.errors import RetracError
from retrac.files import remove
from retrac.influence.attribute import PART, SHOWN, Way, attribution_of, ends
from retrac.influence.attribution import KIND, Attribution
from retrac.influence.config import AttributeConfig
from retrac.influence.queries import Queries, open_queries
from retrac.influence.scorer import GROUPS
from retrac.influence.store import open_result, refuse_other
from retrac.influence.uncertainty import NO_ERROR
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

    Round r has the plan's seed + r, and replays the events r epochs before the first round's, as
    long as the interval has others. Checkpoints show errors, as always; a single checkpoint's are
    shown by its rounds.

    Args:
        run: a training run.
        queries: as for `attribute`.
        until: when to stop.
        config: of the first round.
        query_seed: of generated queries.
        output: a folder for the result. Rounds are kept beside it until it is whole, and taken up
            again; the time begins anew.

    Returns:
        The attribution; `config["until"]` has the `share` and `minutes` asked for, and
        `config["reached"]` the `rounds`, the `repeatability` by method (empty if it cannot be
        told), and whether it was `enough`.

    Raises:
        RetracError: as `attribute`.
    """
    until, config = until or Until(), config or AttributeConfig()
    if isinstance(queries, str):
        queries = open_queries(run, queries, query_seed)
    path = Path(output) if output is not None else None
    way = Way.of(run, config)
    told: dict[str, Any] = {"until": {"share": until.share, "minutes": until.minutes}}
    if path is not None and path.exists():
        earlier = Attribution(*open_result(path, KIND))
        refuse_other(path, earlier.config, {**way.settings_for(queries), **told})
        remove(rounds_beside(path))  # of a run that was stopped just after it had saved
        return earlier
    refuse_untold(way)
    begun, longest = time.monotonic(), 0.0
    rounds: list[Attribution] = []
    while True:
        start = time.monotonic()
        rounds.append(_round(run, queries, config, len(rounds), path))
        result = _mean(rounds, run).with_errors()
        reached = _repeatability(result)
        enough = bool(reached) and min(reached.values()) >= until.share
        longest = max(longest, time.monotonic() - start)
        if enough or time.monotonic() - begun + longest > 60 * until.minutes:
            break
    told["reached"] = {"rounds": len(rounds), "repeatability": reached, "enough": enough}
    result = Attribution(result.dataset, {**rounds[0].config, **told})
    if path is not None:
        result.save(path)
        remove(rounds_beside(path))
    return result


def refuse_untold(way: Way) -> None:
    """Refuse to wait for what will never be known.

    Raises:
        RetracError: there is one checkpoint whose events cannot be told apart.
    """
    (*others, last) = way.scorer.replays
    if not others and (way.index is not None or last.checkpoint.epoch == 1):
        raise RetracError(NO_ERROR)


def rounds_beside(path: Path) -> Path:
    """Where the rounds of a result at `path` are kept until it is whole."""
    return path.resolve().with_name(path.resolve().name + ".rounds")


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
    return {method: float(mean) for method, mean in zip(result.methods, means, strict=True)}


def _mean(rounds: Sequence[Attribution], run: Run) -> Attribution:
    """The mean of some rounds, with the events of all.

    Of a single checkpoint, rounds with other events are groups; rounds with the same ones are not.
    """
    data = [each.dataset for each in rounds]
    first = data[0]
    if len(data) == 1:
        return rounds[0]
    score = np.mean([each["score"].values for each in data], 0, dtype=np.float64)
    shown, others = ends(score.sum(1), SHOWN), _others(data)
    changed: dict[str, Any] = {
        "score": (first["score"].dims, score.astype(np.float32)),
        "query_norm": (
            first["query_norm"].dims,
            np.mean([each["query_norm"].values for each in data], 0),
        ),
        "sample_image": (("shown", "channel", "row", "column"), run.dataset.images[shown]),
        **{
            name: (first[name].dims, np.concatenate([each[name].values for each in others], 2))
            for name in ("train_timestep", "train_norm")
        },
    }
    if len(others) > 1 and first.sizes["checkpoint"] == 1:
        parts = [each["score"].values[:, 0] / len(data) for each in data]
        count = min(GROUPS, len(others))
        changed["part"] = (PART, np.stack([np.sum(parts[g::count], 0) for g in range(count)], 1))
    elif "part" in first:
        changed["part"] = (PART, np.mean([each["part"].values for each in data], 0))
    kept = first.drop_vars([name for name in changed if name in first]).drop_dims("shown")
    return Attribution(kept.assign(changed).assign_coords(shown=shown), rounds[0].config)


def _others(data: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Rounds that replayed other events than those before them."""
    found: list[xr.Dataset] = []
    for each in data:
        events = each["train_timestep"].values
        if not any(np.array_equal(events, one["train_timestep"].values) for one in found):
            found.append(each)
    return found
