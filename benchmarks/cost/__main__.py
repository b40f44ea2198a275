"""Measure the cost of attribution: `make bench`."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import tyro
from rich.console import Console

from benchmarks.cost.job import job_content, job_table
from benchmarks.cost.measure import Cost, Timing, measure_alone
from benchmarks.cost.networks import NETWORKS
from benchmarks.cost.plot import plot
from benchmarks.cost.report import Measured, content, device_name, number, table
from benchmarks.cost.rows import ROWS
from retrac.files import write_json
from retrac.report.canvas import save_png


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    networks: tuple[Literal["small", "cifar", "published"], ...] = ("small", "cifar", "published")
    """On which networks."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which rows, by name."""
    batch: int | None = None
    """Samples in a pass; default: each network's own."""
    queries: int | None = None
    """Queries; default: each network's own."""
    chunk: int | None = None
    """Samples whose whole gradients rows may hold at a time; default: each network's own."""
    rounds: int = 7
    """Rounds of a plain step and a row in turn, after one to warm up."""
    seconds: float = 12
    """For the rounds of one row on one network; there are always three."""
    limit: float = 300
    """Seconds after which a row on one network is given up."""
    device: str = "cpu"
    output: Path = Path("benchmarks/results/cost.json")
    """JSON file; a PNG file of the same name stands beside it."""


def main(settings: Settings) -> None:
    os.environ["TQDM_DISABLE"] = "1"  # dattri shows bars
    own = ("batch", "queries", "chunk")
    changes = {name: value for name in own if (value := getattr(settings, name)) is not None}
    timing = Timing(settings.device, settings.rounds, settings.seconds, settings.limit)
    measured: list[Measured] = []
    for name in settings.networks:
        network, costs = replace(NETWORKS[name], **changes), {}
        for row in settings.rows:
            costs[row] = found = measure_alone(ROWS[row], network, timing)
            told = number(median(found.ratios)) if isinstance(found, Cost) else found.reason
            print(f"{name}: {ROWS[row].title}: {told}", file=sys.stderr, flush=True)
        measured.append(Measured(network, costs))
    device = device_name(settings.device)
    shown, legend = table(measured, settings.rows, device)
    console = Console()
    console.width = max(console.width, 150)
    console.print(shown)
    print(legend)
    jobs = job_table(measured)
    if jobs.row_count:
        console.print(jobs)
    everything = content(measured, settings.rows, device)
    write_json(settings.output, {**everything, "whole job": job_content(measured)})
    save_png(plot(measured, settings.rows, device), settings.output.with_suffix(".png"))
    print(f"written to {settings.output} and {settings.output.with_suffix('.png')}")


if __name__ == "__main__":
    main(tyro.cli(Settings))
