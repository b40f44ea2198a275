"""How well plans agree with the published plan, over tables, and at what cost."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Rows
from scipy.stats import spearmanr

from benchmarks.plans.candidates import METHODS, PUBLISHED, Candidate, choose, scores
from benchmarks.plans.plot import plot
from benchmarks.plans.tables import PARTNERS, TEST, Table
from retrac.files import write_json
from retrac.report.canvas import save_png
from retrac.report.wording import method_name

SPREADS = (3, 5, 7, 10, 14, 20, 25, 30, 40, 50, 70, 100)
KINDS = (
    *(("ends", "independent", noises) for noises in (1, 2, 4, 8, 16)),
    *(("middles", "independent", noises) for noises in (1, 2, 4, 8, 16)),
    *(("ends", "pairs", noises) for noises in (2, 4, 8, 16)),
    *(("middles", "pairs", noises) for noises in (2, 4, 8, 16)),
    *((spacing, "pairs", 2) for spacing in ("random", "low", "high")),
    *(("middles", "shared", noises) for noises in (1, 2, 4)),
)
CANDIDATES = [
    Candidate(timesteps, noises, spacing, noise)
    for spacing, noise, noises in KINDS
    for timesteps in SPREADS
]
SHOWN = (
    *(Candidate(timesteps, 2, "middles", "pairs") for timesteps in (5, 10, 20, 50, 100)),
    *(Candidate(timesteps, 4, "middles", "pairs") for timesteps in (5, 10, 20, 50)),
    *(Candidate(timesteps, 8, "middles", "pairs") for timesteps in (5, 10, 20, 50)),
    *(Candidate(timesteps, 2, "ends", "pairs") for timesteps in (10, 20)),
    *(Candidate(20, 2, spacing, "pairs") for spacing in ("random", "low", "high")),
    *(Candidate(timesteps, 4, "middles", "independent") for timesteps in (10, 20, 50)),
    *(Candidate(timesteps, 4, "ends", "independent") for timesteps in (10, 20, 50)),
    Candidate(20, 4, "middles", "shared"),
    Candidate(20, 16, "middles", "pairs"),
    Candidate(100, 16, "ends", "independent"),
)
TOP = 20


@dataclass(frozen=True)
class Compare:
    """Compare plans from their tables, and draw the curve."""

    tables: Path
    """Folder of the tables."""
    repeats: int = 64
    """Choices of draws for each plan and table."""
    seed: int = 0
    """Of those choices."""
    output: Path = Path("benchmarks/results/plans.json")
    """Numbers; the picture lies beside them."""

    def __call__(self) -> None:
        paths = sorted(self.tables.rglob("*.npz"))
        random = np.random.default_rng(self.seed)
        tables = [Table.load(path) for path in paths]
        found = {each: _agreement(each, tables, self.repeats, random) for each in CANDIDATES}
        _print(found, len(tables))
        save_png(plot(found, len(tables)), self.output.with_suffix(".png"))
        content = {
            "tables": [path.relative_to(self.tables).with_suffix("").as_posix() for path in paths],
            "samples": len(tables[0].norms),
            "repeats": self.repeats,
            "noise and its opposite, correlation": [_turning(table) for table in tables],
            "plans": [
                {**asdict(each), "draws": each.draws, **summaries(found[each])} for each in found
            ],
        }
        write_json(self.output, content)


def _agreement(
    candidate: Candidate, tables: list[Table], repeats: int, random: np.random.Generator
) -> np.ndarray:
    """Spearman and shared top with the published plan, means over repeats: `[2, M, tables]`."""
    found = []
    for table in tables:
        reference = scores(table, PUBLISHED)
        each = [agree(scores(table, choose(candidate, random)), reference) for _ in range(repeats)]
        found.append(np.mean(each, 0))
    return np.stack(found, -1)


def agree(given: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of scores `[M, S]`: rank correlation, and share of the first 20 in common, `[2, M]`."""
    pairs = list(zip(given, reference, strict=True))
    return np.array(
        [[spearmanr(*pair).statistic for pair in pairs], [_top(*pair) for pair in pairs]]
    )


def _top(given: np.ndarray, reference: np.ndarray) -> float:
    first, other = (set(np.argsort(-row)[:TOP].tolist()) for row in (given, reference))
    return len(first & other) / TOP


def summaries(agreement: np.ndarray) -> dict[str, Any]:
    """Of `[2, M, tables]`, by method."""
    return {
        method: {
            "spearman": _summary(agreement[0, at]),
            f"top {TOP}": _summary(agreement[1, at]),
        }
        for at, method in enumerate(METHODS)
    }


def _summary(values: np.ndarray) -> dict[str, float]:
    found = {
        "mean": values.mean(),
        "median": np.median(values),
        "sd": values.std(ddof=1),
        "least": values.min(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def _turning(table: Table) -> float:
    """Correlation of what a noise and its opposite add to a gradient, median over timesteps.

    At -1 all of it turns with the noise, and a pair has none of it.
    """
    own = range(TEST.stop)
    each = table.gram[:, own, own].mean(1)
    others = (table.gram[:, : len(own), : len(own)].sum((1, 2)) / len(own) - each) / (len(own) - 1)
    opposite = table.gram[:, TEST[: len(PARTNERS)], PARTNERS].mean(1)
    return round(float(np.median((opposite - others) / (each - others))), 2)


def _print(found: dict[Candidate, np.ndarray], count: int) -> None:
    heads = (f"{method_name(method)}: mean, median, least, top {TOP}" for method in METHODS)
    rows = Rows("plan", "draws", *heads, title=f"Spearman with the published plan, {count} tables")
    for candidate in SHOWN:
        spearman, top = found[candidate]
        numbers = (
            f"{spearman[at].mean():.4f}  {np.median(spearman[at]):.4f}  {spearman[at].min():.3f}  "
            f"{top[at].mean():.2f}"
            for at in range(len(METHODS))
        )
        rows.add_row(str(candidate), str(candidate.draws), *numbers)
    Console(width=110).print(rows)
