"""Do the error bars of scores hold what they promise?

Repeats of the same effort, with other events and draws, are held against one another: a repeat's
scores with their intervals against the mean of all others, which is itself not quite the truth: its
own error widens the interval by √(1 + 1/(R-1)) with R repeats. Repeats are

- on a run with many checkpoints, disjoint groups of a few, evenly spaced, whose scores are
  estimates from an index;
- with `--visits`, exact scores of the last checkpoint alone, with disjoint visits of the samples
  and other draws of the queries.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from scipy.stats import t as student

from retrac.attribution.asked import Queries
from retrac.attribution.attribute import attribute
from retrac.attribution.build_index import build_index
from retrac.attribution.config import IndexConfig, PlanConfig
from retrac.attribution.methods import by_events
from retrac.attribution.queries import open_queries
from retrac.attribution.uncertainty import CERTAIN, Uncertainty, in_first
from retrac.files import write_json
from retrac.training.run import Run

LEVEL = 0.9
METHODS = tuple(method.name for method in by_events())
Repeats = tuple[str, int, list[Uncertainty]]
"""A method, how much effort each repeat took, and the repeats."""


@dataclass(frozen=True)
class Settings:
    """What is repeated."""

    run: tyro.conf.Positional[Path]
    """A run with a checkpoint after every epoch; an index is made in it. With `--visits`, any."""
    skip: int = 6
    """First checkpoints that do not count: there, scores change from epoch to epoch."""
    sizes: tuple[int, ...] = (2, 3, 6)
    """Checkpoints in a group."""
    visits: tuple[int, ...] = ()
    """Instead of groups of checkpoints: visits of each sample, at the last checkpoint."""
    repeats: int = 10
    """Of each number of visits."""
    queries: int = 8
    """Training samples as queries, and as many generated images."""
    tops: tuple[int, ...] = (10, 50)
    """Lengths of lists."""
    output: Path = Path("benchmarks/results/coverage.json")


def main(settings: Settings) -> None:
    run = Run.open(settings.run)
    asked = open_queries(run, f"train:{settings.queries}+generated:{settings.queries}")
    repeats = (
        of_visits(run, asked, settings) if settings.visits else of_groups(run, asked, settings)
    )
    rows = [
        {"method": method, "size": size, **compared(found, settings.tops)}
        for method, size, found in repeats
    ]
    unit = "visits" if settings.visits else "checkpoints"
    table = Table("method", unit, "coverage", "ρ of repeats", "list", "repeats", "belong",
                  "certain", "of these belong", caption="in brackets: told")  # fmt: skip
    for row in rows:
        for top, told in row["lists"].items():
            table.add_row(
                str(row["method"]),
                str(row["size"]),
                f"{row['coverage']:.2f} ({LEVEL})",
                f"{row['rank']:.2f} ({row['rank told']:.2f})",
                top,
                f"{told['repeats']:.2f} ({told['repeats told']:.2f})",
                f"{told['belong']:.2f} ({told['belong told']:.2f})",
                f"{told['certain']:.2f}",
                "–" if told["certain belong"] is None else f"{told['certain belong']:.2f}",
            )
    Console(width=120).print(table)
    command = " ".join(["python", "-m", "benchmarks.coverage", *sys.argv[1:]])
    write_json(settings.output, {"command": command, "level": LEVEL, "rows": rows})


def of_groups(run: Run, asked: Queries, settings: Settings) -> Iterator[Repeats]:
    """Disjoint groups of checkpoints."""
    build_index(run, IndexConfig())
    found = attribute(run, asked, METHODS, index=True)
    for size in settings.sizes:
        for method, values in zip(found.methods, found.contributions.values, strict=True):
            used = values[settings.skip :]
            count = len(used) // size
            groups = [used[start::count][:size] for start in range(count)]
            yield method, size, [Uncertainty.of(group) for group in groups]


def of_visits(run: Run, asked: Queries, settings: Settings) -> Iterator[Repeats]:
    """Disjoint visits of one checkpoint."""
    for size in settings.visits:
        found = [
            attribute(
                run,
                asked,
                METHODS,
                checkpoints=(run.checkpoints[-1].epoch,),
                replay=str(size),
                replay_back=place,
                plan=PlanConfig(plan_seed=place),
            )
            for place in range(settings.repeats)
        ]
        for method in found[0].methods:
            yield method, size, [each.uncertainty(method) for each in found]


def compared(found: list[Uncertainty], tops: tuple[int, ...]) -> dict[str, Any]:
    """How true it is what each of some repeats says of itself, by the others."""
    repeats = len(found)
    sums = np.stack([sure.scores for sure in found])  # [R, Q, N]
    means = np.stack([np.delete(sums, place, 0).mean(0) for place in range(repeats)])
    held = [_held(sure, mean, repeats) for sure, mean in zip(found, means, strict=True)]
    by_query = np.mean(held, 0)
    ranks = [
        float(spearmanr(*pair).statistic)
        for one, two in combinations(sums, 2)
        for pair in zip(one, two, strict=True)
    ]
    return {
        "repeats": repeats,
        "coverage": float(by_query.mean()),
        "least": float(by_query.min()),
        "most": float(by_query.max()),
        "rank": float(np.mean(ranks)),
        "rank told": float(np.mean([sure.halves for sure in found])),
        "lists": {str(top): _lists(found, sums, means, top) for top in tops},
    }


def _held(sure: Uncertainty, mean: np.ndarray, repeats: int) -> np.ndarray:
    """Share of the intervals that hold the mean of the others, `[Q]`."""
    wider = np.sqrt(1 + 1 / (repeats - 1))
    reach = student.ppf((1 + LEVEL) / 2, sure.freedom)[:, None] * sure.errors * wider
    return np.asarray((np.abs(sure.scores - mean) <= reach).mean(1))


def _lists(
    found: list[Uncertainty], sums: np.ndarray, means: np.ndarray, top: int
) -> dict[str, float | None]:
    """Of lists' first `top`: how many repeat, belong, are called certain, and then belong."""
    first, true = in_first(sums, top), in_first(means, top)
    told = [sure.first(top) for sure in found]
    chance = np.stack([each.membership for each in told])
    certain = first & (chance >= CERTAIN)
    shared = [(one & two).sum() / one.sum() for one, two in combinations(first, 2)]
    return {
        "repeats": float(np.mean(shared)),
        "repeats told": float(np.mean([each.repeatability for each in told])),
        "belong": float(true[first].mean()),
        "belong told": float(chance[first].mean()),
        "certain": float(certain.sum(2).mean()),
        "certain belong": float(true[certain].mean()) if certain.any() else None,
    }


if __name__ == "__main__":
    main(tyro.cli(Settings))
