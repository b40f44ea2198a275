"""How well an index of a given size ranks samples, against the exact scores of the same run.

For each size: an index of the run's last checkpoint is made in a copy of the run, and its scores
are compared with the exact ones, query by query, for both methods; ReTrac also as it would be with
exact norms of the samples' gradients instead of their sketches'.
"""

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from retrac.attribution.attribute import attribute
from retrac.attribution.attribution import Attribution
from retrac.attribution.build_index import build_index
from retrac.attribution.config import IndexConfig, PlanConfig
from retrac.attribution.methods import by_events
from retrac.attribution.queries import open_queries
from retrac.files import write_json
from retrac.store.intervals import INTERVALS
from retrac.training.run import Run

METHODS = tuple(method.name for method in by_events())
TOP = 20
OTHER = "retrac, exact norms"


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    run: tyro.conf.Positional[Path]
    """A trained run; not changed."""
    queries: int = 8
    """Training samples as queries, and as many generated images."""
    sizes: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16384, 32768)
    """Numbers of a sketch."""
    parameters: str = ".*"
    """Only parameters in whose name it is found count."""
    output: Path = Path("benchmarks/results/sketches.json")
    """JSON; the figure stands beside it."""


def main(settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run.open(shutil.copytree(settings.run, Path(folder) / "run"))
        queries = open_queries(run, f"train:{settings.queries}+generated:{settings.queries}")
        last = (run.checkpoints[-1].epoch,)
        plan = PlanConfig()
        exact = attribute(
            run,
            queries,
            METHODS,
            plan=plan,
            checkpoints=last,
            parameters=settings.parameters,
        )
        rows: list[dict[str, Any]] = []
        for size in settings.sizes:
            index = build_index(
                run,
                IndexConfig(METHODS, last, sketch_size=size, parameters=settings.parameters),
            )
            estimate = attribute(run, queries, METHODS, plan=plan, index=True)
            numbers = index.features[INTERVALS].layout.size
            row: dict[str, Any] = {"asked": size, "numbers": numbers}
            for method in exact.methods:
                row[method] = agreement(
                    exact.scores_of(method).values, estimate.scores_of(method).values
                )
            row[OTHER] = agreement(
                exact.scores_of("retrac").values, _with_exact_norms(exact, estimate)
            )
            rows.append(row)
            shutil.rmtree(index.path)
    _report(rows, settings, run)


def _with_exact_norms(exact: Attribution, estimate: Attribution) -> np.ndarray:
    """ReTrac's estimates `[Q, N]`, had the norms not come from sketches: one visit per sample."""
    by_sketch, true = (found.dataset["train_norm"].values[0, :, 0] for found in (estimate, exact))
    return estimate.scores_of("retrac").values * by_sketch / true


def agreement(exact: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """Over queries: mean and least Spearman, and mean overlap of the first twenty."""
    ranks = [float(spearmanr(one, two).statistic) for one, two in zip(exact, estimate, strict=True)]
    tops = [
        len({*np.argsort(-one)[:TOP]} & {*np.argsort(-two)[:TOP]}) / TOP
        for one, two in zip(exact, estimate, strict=True)
    ]
    return {
        "spearman": float(np.mean(ranks)),
        "least spearman": min(ranks),
        "top 20": float(np.mean(tops)),
    }


def _report(rows: list[dict[str, Any]], settings: Settings, run: Run) -> None:
    table = Table(
        "numbers",
        *(head for each in by_events() for head in (f"{each.title} ρ", "least", "top 20")),
        "with exact norms", "least", "top 20",
        title=f"{run.path.name}: index against exact scores, {2 * settings.queries} queries, "
        f"{len(run.dataset)} samples",
    )  # fmt: skip
    for row in rows:
        cells = [
            f"{row[method][name]:.4f}" if name != "top 20" else f"{row[method][name]:.2f}"
            for method in (*METHODS, OTHER)
            for name in ("spearman", "least spearman", "top 20")
        ]
        table.add_row(f"{row['numbers']:,}", *cells)
    Console(width=120).print(table)
    write_json(
        settings.output,
        {
            "command": " ".join(["python", "-m", "benchmarks.sketches", *sys.argv[1:]]),
            "parameters": run.record["parameters"],
            "samples": len(run.dataset),
            "queries": 2 * settings.queries,
            "rows": rows,
        },
    )
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for method, name in ((each.name, each.title) for each in by_events()):
        numbers = [row["numbers"] for row in rows]
        (line,) = axes.plot(
            numbers, [row[method]["spearman"] for row in rows], "o-", label=f"{name}: Spearman"
        )
        axes.plot(
            numbers,
            [row[method]["top 20"] for row in rows],
            "s--",
            color=line.get_color(),
            label=f"{name}: share of the first 20",
        )
    axes.set(
        xscale="log",
        xlabel="numbers of a sketch",
        ylabel="agreement with exact scores",
        title=f"{run.record['parameters'] / 1e6:.1f} M parameters in few numbers",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(settings.output.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main(tyro.cli(Settings))
