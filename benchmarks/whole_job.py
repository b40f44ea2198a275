"""A whole job on a real run, by the clock: ours in full, the naive loop by a part of its draws.

Each of our ways answers the same queries at every checkpoint of the run; scores are compared with
the exact ones of the published plan, whose draws have another seed. The naive loop (a batch of one,
`torch.autograd.grad`, one inner product per query and method) is timed on a few draws and samples
and multiplied, which the table says.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.cost.baselines import naive_query, naive_scores
from benchmarks.cost.networks import Network
from benchmarks.cost.report import device_name
from benchmarks.cost.workload import Workload
from retrac.allocator import keep_freed_memory
from retrac.attribution.asked import Queries
from retrac.attribution.attribute import attribute
from retrac.attribution.attribution import Attribution
from retrac.attribution.build_index import build_index
from retrac.attribution.config import IndexConfig, PlanConfig
from retrac.attribution.methods import by_events
from retrac.attribution.queries import open_queries
from retrac.diffusion.model import build_unet
from retrac.files import write_json
from retrac.training.run import Run
from retrac.training.trained import TrainedRun

METHODS = tuple(method.name for method in by_events())
OTHER_SEED = 1


@dataclass(frozen=True)
class Settings:
    """What is timed."""

    run: tyro.conf.Positional[Path]
    """A trained run; not changed."""
    queries: int = 8
    """Training samples as queries, and as many generated images."""
    part: int = 64
    """Draws, and samples, on which the naive loop is timed, three times each."""
    output: Path = Path("benchmarks/results/whole-job.json")


@dataclass(frozen=True, eq=False)
class Done:
    """One way, done: seconds, and what it found."""

    way: str
    seconds: float
    scores: Attribution


def main(settings: Settings) -> None:
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        run = TrainedRun.open(shutil.copytree(settings.run, Path(folder) / "run"))
        queries = open_queries(run, f"train:{settings.queries}+generated:{settings.queries}")
        published = PlanConfig(plan="published", plan_seed=OTHER_SEED)
        ways = {
            "ours, exact, published plan": partial(
                attribute, run, queries, METHODS, plan=published
            ),
            "ours, exact, default plan": partial(attribute, run, queries, METHODS),
            "ours, indexed, default plan": partial(_indexed, run, queries),
        }
        done = [_timed(way, work) for way, work in ways.items()]
        _report(settings, run, done, _naive(run, settings, published))


def _indexed(run: Run, queries: Queries) -> Attribution:
    build_index(run, IndexConfig())
    return attribute(run, queries, METHODS, index=True)


def _timed(way: str, work: Callable[[], Attribution]) -> Done:
    begun = time.perf_counter()
    scores = work()
    return Done(way, time.perf_counter() - begun, scores)


def _naive(run: TrainedRun, settings: Settings, plan: PlanConfig) -> dict[str, float]:
    """Seconds of a draw and of a sample, and of all of them."""
    network = Network(
        "run",
        run.path.name,
        partial(build_unet, run.config.model, run.shape, seed=0),
        run.shape,
        batch=settings.part,
        queries=2 * settings.queries,
        chunk=settings.part,
        part=settings.part,
    )
    workload = Workload.of(network, "cpu")
    each = {}
    for name, prepare in (("draw", naive_query), ("sample", naive_scores)):
        work = prepare(workload)
        work.run()
        seconds = []
        for _ in range(3):
            begun = time.perf_counter()
            work.run()
            seconds.append((time.perf_counter() - begun) / work.units)
        each[name] = float(np.median(seconds))
    draws = 2 * settings.queries * plan.timesteps * plan.noises
    whole = len(run.checkpoints) * (draws * each["draw"] + len(run.dataset) * each["sample"])
    return {**each, "whole": whole}


def _report(settings: Settings, run: Run, done: list[Done], naive: dict[str, float]) -> None:
    """Agreement is with the first."""
    rows, reference = [], done[0].scores
    for one in done:
        row: dict[str, Any] = {
            "way": one.way,
            "seconds": one.seconds,
            "times faster": naive["whole"] / one.seconds,
        }
        for method in reference.methods:
            pairs = zip(
                reference.scores_of(method).values, one.scores.scores_of(method).values, strict=True
            )
            found = [float(spearmanr(exact, scores).statistic) for exact, scores in pairs]
            row[method] = {"spearman": float(np.mean(found)), "least": min(found)}
        rows.append(row)
    table = Table(
        "way", "seconds", "times faster", *(f"{each.title} ρ (least)" for each in by_events()),
        title=f"{2 * settings.queries} queries, {len(run.dataset)} samples, "
        f"{len(run.checkpoints)} checkpoints of {run.path.name}",
    )  # fmt: skip
    table.add_row(
        f"naive loop, published plan (from {settings.part} draws and samples)",
        f"{naive['whole']:.0f}", "1.0", "", "",
    )  # fmt: skip
    for row in rows:
        agreement = [
            f"{row[method]['spearman']:.4f} ({row[method]['least']:.3f})" for method in METHODS
        ]
        faster = f"{row['times faster']:.1f}"
        table.add_row(row["way"], f"{row['seconds']:.0f}", faster, *agreement)
    Console().print(table)
    write_json(
        settings.output,
        {
            "command": " ".join(["python", "-m", "benchmarks.whole_job", *sys.argv[1:]]),
            "processor": device_name("cpu"),
            "parameters": run.record["parameters"],
            "samples": len(run.dataset),
            "queries": 2 * settings.queries,
            "checkpoints": [checkpoint.epoch for checkpoint in run.checkpoints],
            "naive": {"timed on": settings.part, **naive},
            "ours": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
