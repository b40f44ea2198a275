"""The table and the JSON of what was measured."""

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.cost.measure import Cost, Failure
from benchmarks.cost.networks import Network
from benchmarks.cost.rows import REFERENCE, ROWS

TOLERANCE = 1e-3
"""Difference of scores, relative to the greatest of them, that needs no mention."""
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Measured:
    """What was measured on one network.

    Attributes:
        network: its description.
        costs: by the names of rows.
    """

    network: Network
    costs: dict[str, Cost | Failure]

    @property
    def plain(self) -> float:
        """Seconds of the plain step per sample, the median over the processes of all rows."""
        found = [cost.plain for cost in self.costs.values() if isinstance(cost, Cost)]
        return statistics.median(found) if found else float("nan")

    def difference(self, name: str) -> float | None:
        """Greatest difference of a row's scores from ours, relative to the greatest score."""
        cost, ours = self.costs[name], self.costs.get(REFERENCE.name)
        if not (isinstance(cost, Cost) and isinstance(ours, Cost)):
            return None
        if cost.scores is None or ours.scores is None:
            return None
        methods, samples, _ = cost.scores.shape
        expected = ours.scores[:methods, :samples]
        scale = np.abs(expected).max((1, 2), keepdims=True)
        return float((np.abs(cost.scores - expected) / scale).max())


def table(measured: Sequence[Measured], names: Sequence[str], device: str) -> tuple[Table, str]:
    """The table, and what must be known to read it."""
    notes: list[str] = []

    def mark(note: str) -> str:
        if note and note not in notes:
            notes.append(note)
        return str(notes.index(note) + 1).translate(SUPERSCRIPTS) if note else ""

    shown = Table(title=f"Seconds relative to a plain training step, and peak memory\n{device}")
    shown.add_column("")
    shown.add_column("per")
    for each in measured:
        shown.add_column(f"{each.network.name}\n× plain", justify="right")
        shown.add_column("\nmemory", justify="right")
    for name in names:
        row = ROWS[name]
        cells = [row.title + mark(row.note), row.per]
        for each in measured:
            cost = each.costs[name]
            if isinstance(cost, Failure):
                cells += ["–" + mark(f"{each.network.name}: {cost.reason}"), ""]
                continue
            difference = each.difference(name) or 0.0
            warning = f"scores differ from ours by {difference:.1g} of the greatest"
            middle, low, high = (
                number(find(cost.ratios)) for find in (statistics.median, min, max)
            )
            cells += [
                f"{middle} ({low}–{high}){mark(warning) if difference > TOLERANCE else ''}",
                f"{cost.peak_bytes / 2**20:,.0f} MB",
            ]
        shown.add_row(*cells)
    legend = [
        "Medians of rounds, with the lowest and the highest: of 3 where they are slow, else of "
        "more; two rows whose ranges overlap cannot be told apart. Memory is what a row takes "
        "at most beyond the network, a batch and the directions that it was given.",
        *(describe(each) for each in measured),
        *(f"{mark(note)} {note}" for note in notes),
    ]
    return shown, "\n".join(legend)


def describe(measured: Measured) -> str:
    """What was measured on, in one line."""
    network = measured.network
    return (
        f"{network.name}: {network.title}, {network.parameters / 1e6:.1f} M parameters, images "
        f"{'×'.join(map(str, network.shape))}, batch {network.batch}, {network.queries} queries, "
        f"chunks of {network.chunk}, parts of {network.part}; a plain step takes "
        f"{measured.plain * 1e3:.1f} ms per sample"
    )


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def content(measured: Sequence[Measured], names: Sequence[str], device: str) -> dict[str, Any]:
    """Everything, for the JSON file."""
    return {
        "command": " ".join(["python", "-m", "benchmarks.cost", *sys.argv[1:]]),
        "device": device,
        "threads": torch.get_num_threads(),
        "waiting threads": waiting(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in ("torch", "captum", "dattri")},
        "networks": {
            each.network.name: {
                "title": each.network.title,
                "parameters": each.network.parameters,
                "image": list(each.network.shape),
                "batch": each.network.batch,
                "queries": each.network.queries,
                "chunk": each.network.chunk,
                "part": each.network.part,
                "plain seconds per sample": each.plain,
                "rows": {name: _row(each, name) for name in names},
            }
            for each in measured
        },
    }


def device_name(device: str) -> str:
    """The accelerator's name, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def waiting() -> str:
    """What threads do between two operations: they spin if nothing is said, and sleep if passive,
    which costs small operations time, but leaves the cores to other processes."""
    return os.environ.get("OMP_WAIT_POLICY", "spin")


def _row(measured: Measured, name: str) -> dict[str, Any]:
    row, cost = ROWS[name], measured.costs[name]
    if isinstance(cost, Failure):
        return {"title": row.title, "per": row.per, "failed": cost.reason}
    return {
        "title": row.title,
        "per": row.per,
        "over plain": statistics.median(cost.ratios),
        "over plain, by round": list(cost.ratios),
        "units timed": cost.units,
        "peak bytes": cost.peak_bytes,
        "difference of scores": measured.difference(name),
        "note": row.note,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
