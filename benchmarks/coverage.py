"""Do the error bars of scores hold what they promise?

On a run with many checkpoints, each with events and draws of its own, disjoint groups of a few
checkpoints, evenly spaced, are repeats of one another. A group's scores with their intervals are
held against the mean of all other groups, which is itself not quite the truth: its own error widens
the interval by √(1 + 1/(R-1)) with R groups. Scores are estimates from an index of the run.
"""

import sys
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

from retrac.files import write_json
from retrac.influence.attribute import attribute
from retrac.influence.config import IndexConfig
from retrac.influence.indexed import build_index
from retrac.influence.uncertainty import CERTAIN, Uncertainty, in_first
from retrac.training.run import Run

LEVEL = 0.9


@dataclass(frozen=True)
class Settings:
    """What is repeated."""

    run: tyro.conf.Positional[Path]
    """A run with a checkpoint after every epoch; an index is made in it."""
    skip: int = 6
    """First checkpoints that do not count: there, scores change from epoch to epoch."""
    sizes: tuple[int, ...] = (2, 3, 6)
    """Checkpoints in a group."""
    queries: int = 8
    """Training samples as queries, and as many generated images."""
    tops: tuple[int, ...] = (10, 50)
    """Lengths of lists."""
    output: Path = Path("benchmarks/results/coverage.json")


def main(settings: Settings) -> None:
    run = Run.open(settings.run)
    build_index(run, IndexConfig())
    asked = f"train:{settings.queries}+generated:{settings.queries}"
    found = attribute(run, asked, index=True)
    rows = [
        {"method": method, "size": size, **_repeats(values[settings.skip :], size, settings.tops)}
        for size in settings.sizes
        for method, values in zip(found.methods, found.contributions.values, strict=True)
    ]
    table = Table("method", "checkpoints", "coverage", "ρ of repeats", "list", "repeats",
                  "belong", "certain", "of these belong", caption="in brackets: told")  # fmt: skip
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


def _repeats(values: np.ndarray, size: int, tops: tuple[int, ...]) -> dict[str, Any]:
    """How true it is what `size` of the checkpoints `[K, Q, N]` tell, by repeats."""
    repeats = len(values) // size
    groups = [values[start::repeats][:size] for start in range(repeats)]
    found = [Uncertainty.of(group) for group in groups]
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
