"""Is what a command tells before it starts true? Its estimate against what it took.

`python benchmarks/estimates.py RUN` runs every long command on a copy of a trained run of digits,
reads the estimate from its standard error, and compares: seconds from that line to the end, the
process's peak of resident memory, and the most bytes that stood on the disk at any time beyond
those before. Commands start one after another; later ones need what earlier ones made.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread

import tyro
from rich.console import Console
from rich.table import Table

from retrac.attribution.methods import DEFAULT, by_events, methods
from retrac.attribution.parameter_metrics import Curvature

UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400, "MB": 2**20, "GB": 2**30, "TB": 2**40}
SMALL = 2**20
"""Less than that is told as such, and there is nothing to compare."""
TOLD = re.compile(
    r"about ([\d.]+) (\w+), ([\d.]+) (\w+) of memory, (?:less than )?([\d.]+) (\w+) on disk"
)
TWO = ("--checkpoints", "12", "24")
EVENTS = ("--methods", *(method.name for method in by_events()))
CURVED = (
    "--methods",
    *(each.name for each in methods().values() if isinstance(each.parameter_metric, Curvature)),
)
FRESH = ("train", "--dataset", "digits", "--epochs", "4", "--checkpoint-every", "2", "--output")
COMMANDS = {
    "train": (*FRESH, "fresh"),
    "train --record": (*FRESH, "recorded", "--record"),
    "generate": ("generate", "run", "--count", "128"),
    "index": ("index", "run", *EVENTS, *TWO),
    "attribute": ("attribute", "run", "--queries", "train:4", "--plan", "fast", *EVENTS, *TWO),
    "attribute, features": (
        *("attribute", "run", "--queries", "train:4", "--methods", DEFAULT[0]),
        *("--draws", "small", *TWO),
    ),
    "attribute, curvature": ("attribute", "run", "--queries", "train:4", *CURVED, *TWO),
    "attribute generated": ("attribute", "run", "--queries", "generated:2", *EVENTS, *TWO),
    "attribute --index": ("attribute", "run", "--queries", "train:8", "--index"),
    "attribute --exact-top": (
        *("attribute", "run", "--queries", "train:3", "--plan", "fast"),
        *("--index", "--exact-top", "100"),
    ),
    "attribute --recorded": ("attribute", "recorded", "--queries", "train:8", "--recorded"),
    "outliers": ("outliers", "run", "--samples", "64", *TWO),
    "norms": ("norms", "run", "--samples", "1000"),
}


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    run: tyro.conf.Positional[Path]
    """A run of digits with checkpoints after epochs 12 and 24; it is copied."""
    work: Path
    """Folder for the copy and what the commands write; kept, so that some can be run alone."""
    only: tuple[str, ...] = field(default_factory=lambda: tuple(COMMANDS))
    """Names of the commands."""
    output: Path = Path("benchmarks/results/estimates.json")


@dataclass(frozen=True)
class Needs:
    """Seconds, and bytes."""

    seconds: float
    memory: float
    disk: float


def main(settings: Settings) -> None:
    settings.work.mkdir(parents=True, exist_ok=True)
    if not (settings.work / "run").exists():
        shutil.copytree(settings.run, settings.work / "run")
    results = json.loads(settings.output.read_text()) if settings.output.is_file() else {}
    for name in settings.only:
        estimate, truth = compare(COMMANDS[name], settings.work)
        results[name] = {
            "command": " ".join(COMMANDS[name]),
            "estimate": asdict(estimate),
            "truth": asdict(truth),
        }
        settings.output.write_text(json.dumps(results, indent=2) + "\n")
    show(results)


def compare(command: tuple[str, ...], work: Path) -> tuple[Needs, Needs]:
    """Run a command in a folder; what it told, and what it took."""
    before = standing_bytes(work)
    process = subprocess.Popen(
        [sys.executable, "-m", "retrac", *command],
        cwd=work,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with highest(lambda: standing_bytes(work)) as most:
        told = next((match for line in process.stderr if (match := TOLD.match(line))), None)
        begun = time.perf_counter()
        rest = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    if told is None or status:
        raise SystemExit(f"retrac {' '.join(command)}: no estimate, or failed: {rest}")
    amounts = [float(told[at]) * UNITS[told[at + 1]] for at in (1, 3, 5)]
    return Needs(*amounts), Needs(seconds, used.ru_maxrss * 1024, most() - before)


class highest:  # noqa: N801
    """Watch a number; gives a function that tells its highest value so far."""

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._most = number()
        self._ended = Event()
        self._thread = Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self._most = max(self._most, self._number())

    def __enter__(self) -> Callable[[], int]:
        self._thread.start()
        return lambda: max(self._most, self._number())

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def standing_bytes(folder: Path) -> int:
    """Bytes of all files."""
    return sum(size(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def size(path: Path) -> int:
    """Bytes of a file; none if it has vanished meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    table = Table(
        "command", "seconds", "took", "memory MB", "took", "disk MB", "took", title="estimates"
    )
    for name, row in results.items():
        cells: list[str] = []
        for what, unit in (("seconds", 1.0), ("memory", 2.0**20), ("disk", 2.0**20)):
            told, took = row["estimate"][what], row["truth"][what]
            little = what == "disk" and told <= SMALL and took <= SMALL
            off = "" if little else f" ({told / took - 1:+.0%})"
            cells += [f"{told / unit:.1f}", f"{took / unit:.1f}{off}"]
        table.add_row(name, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings))
