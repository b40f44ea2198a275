"""Do the error bars of scores hold what they promise?

On a run with many checkpoints, each with events and draws of its own, disjoint groups of a few
checkpoints, evenly spaced, are repeats of one another. A group's scores with their intervals are
held against the mean of all other groups, which is itself not quite the truth: its own error widens
the interval by √(1 + 1/(R-1)) with R groups. Scores are estimates from an index of the run.
"""

import sys
from dataclasses import dataclass
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
from retrac.influence.uncertainty import Uncertainty
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
    top: int = 10
    output: Path = Path("benchmarks/results/coverage.json")


def main(settings: Settings) -> None:
    run = Run.open(settings.run)
    build_index(run, IndexConfig())
    asked = f"train:{settings.queries}+generated:{settings.queries}"
    found = attribute(run, asked, index=True)
    rows = []
    for size in settings.sizes:
        for method in found.methods:
            values = found.contributions.sel({"method": method}).values[settings.skip :]
            rows.append({"method": method, "size": size, **_repeats(values, size, settings.top)})
    table = Table("method", "checkpoints", "coverage", "by query", "repeatability", "told",
                  "ρ of repeats", "told")  # fmt: skip
    for row in rows:
        table.add_row(
            str(row["method"]),
            str(row["size"]),
            f"{row['coverage']:.3f}",
            f"{row['least']:.2f} to {row['most']:.2f}",
            f"{row['repeatability']:.2f}",
            f"{row['repeatability told']:.2f}",
            f"{row['rank']:.2f}",
            f"{row['rank told']:.2f}",
        )
    Console(width=110).print(table)
    command = " ".join(["python", "-m", "benchmarks.coverage", *sys.argv[1:]])
    write_json(settings.output, {"command": command, "level": LEVEL, "rows": rows})


def _repeats(values: np.ndarray, size: int, top: int) -> dict[str, Any]:
    """How often intervals from `size` of the checkpoints `[K, Q, N]` hold the others' mean."""
    repeats = len(values) // size
    groups = [values[start::repeats][:size] for start in range(repeats)]
    sums = np.stack([group.sum(0) for group in groups])  # [R, Q, N]
    held, shared, told, ranks, rank_told = [], [], [], [], []
    for place, group in enumerate(groups):
        sure = Uncertainty.of(group)
        others = np.delete(sums, place, 0)
        wider = np.sqrt(1 + 1 / (repeats - 1))
        reach = student.ppf((1 + LEVEL) / 2, sure.freedom)[:, None] * sure.errors * wider
        held.append((np.abs(sure.scores - others.mean(0)) <= reach).mean(1))
        told.append(sure.repeatability(top).mean())
        rank_told.append(sure.halves.mean())
        for other in others:
            shared.append(_overlap(sure.scores, other, top))
            ranks += [
                float(spearmanr(one, two).statistic)
                for one, two in zip(sure.scores, other, strict=True)
            ]
    by_query = np.mean(held, 0)
    return {
        "repeats": repeats,
        "coverage": float(np.mean(held)),
        "least": float(by_query.min()),
        "most": float(by_query.max()),
        "repeatability": float(np.mean(shared)),
        "repeatability told": float(np.mean(told)),
        "rank": float(np.mean(ranks)),
        "rank told": float(np.mean(rank_told)),
    }


def _overlap(one: np.ndarray, two: np.ndarray, top: int) -> float:
    lists = (np.argsort(-side, 1)[:, :top] for side in (one, two))
    return float(np.mean([len({*a} & {*b}) / top for a, b in zip(*lists, strict=True)]))


if __name__ == "__main__":
    main(tyro.cli(Settings))
