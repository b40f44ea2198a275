"""Is a small memory budget kept? Peaks of real commands within 6 × the weights and 1 GB.

`python -m benchmarks.memory --work FOLDER` trains the two large networks of the cost benchmark for
one epoch on a few crops of photographs, runs every command that takes `--memory-budget` on them,
each in a process of its own, and compares the peak of its resident memory, less what a process
holds that has only imported everything, with the budget.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from retrac.files import write_json

TRAIN = (
    *("train", "--dataset", "photos-zeros", "--resolution", "32", "--limit", "32"),
    *("--epochs", "1", "--checkpoint-every", "1", "--batch-size", "16", "--sample-count", "0"),
    *("--norm-groups", "32"),
)
NETWORKS = {
    "cifar": (
        *("--channels", "128", "256", "256", "256", "--layers-per-block", "2"),
        *("--attention-levels", "1", "--attention-head-dim", "256"),
    ),
    "published": (
        *("--channels", "128", "256", "512", "1024", "--layers-per-block", "1"),
        "--attention-levels",
    ),
}
PLAN = ("--plan-timesteps", "4")
COMMANDS = {
    "index": ("index", "{run}"),
    "attribute": ("attribute", "{run}", "--queries", "train:4", *PLAN),
    "attribute, 16 noises": (
        *("attribute", "{run}", "--queries", "train:1"),
        *("--plan-timesteps", "2", "--plan-noises", "16"),
    ),
    "attribute --index": ("attribute", "{run}", "--queries", "train:4", *PLAN, "--index"),
    "outliers": ("outliers", "{run}", "--samples", "4", *PLAN),
    "norms": ("norms", "{run}", "--samples", "4"),
}
RETRAC = (sys.executable, "-m", "retrac")
IMPORTS = (
    "import torch, diffusers, retrac.cli.main, retrac.attribution.attribute, retrac.report.page"
)


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    work: Path
    """Folder for the trained runs and results; runs that are there are taken."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    output: Path = Path("benchmarks/results/memory.json")


def main(settings: Settings) -> None:
    settings.work.mkdir(parents=True, exist_ok=True)
    empty = peak([sys.executable, "-c", IMPORTS])
    found: dict[str, dict[str, object]] = {}
    table = Table("network", "budget", *COMMANDS, title="MB of memory at the most")
    for name in settings.networks:
        run = settings.work / name
        if not (run / "checkpoints").is_dir():
            peak([*RETRAC, *TRAIN, *NETWORKS[name], "--output", str(run)])
        parameters = json.loads((run / "run.json").read_text())["parameters"]
        budget = (6 * 4 * parameters + 2**30) // 2**20
        peaks = {}
        for title, command in COMMANDS.items():
            filled = [word.format(run=run) for word in command]
            output = [] if title == "index" else ["--output", str(run / "results" / title)]
            took = peak([*RETRAC, *filled, *output, "--memory-budget", f"{budget}MB"])
            peaks[title] = (took - empty) // 2**20
            print(f"{name}: {title}: {peaks[title]} of {budget} MB", file=sys.stderr, flush=True)
        found[name] = {"parameters": parameters, "budget MB": budget, "peak MB": peaks}
        table.add_row(name, str(budget), *map(str, peaks.values()))
    Console().print(table)
    write_json(settings.output, {"imports MB": empty // 2**20, "networks": found})


def peak(command: list[str]) -> int:
    """Most bytes of resident memory of a process that must succeed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {told[-500:]}")
    return used.ru_maxrss * 1024


if __name__ == "__main__":
    main(tyro.cli(Settings))
