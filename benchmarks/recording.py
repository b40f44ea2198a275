"""What recording costs a whole training, by the clock, and how well what it recorded ranks.

The same training of digits, without and with a recording, alternately; weights are compared bit for
bit. Recordings of some sizes are compared with one of many more numbers, since nothing exact
remains of visits whose weights are gone.
"""

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from benchmarks.cost.report import device_name, waiting
from benchmarks.sketches import agreement
from retrac.allocator import keep_freed_memory
from retrac.attribution.attribute import attribute
from retrac.attribution.config import PlanConfig
from retrac.attribution.methods import DEFAULT, by_events, method_named
from retrac.attribution.queries import open_queries
from retrac.data.config import DatasetConfig
from retrac.files import write_json
from retrac.training.config import RecordConfig, TrainConfig
from retrac.training.loop import train
from retrac.training.trained import TrainedRun

METHODS = (*(method.name for method in by_events()), DEFAULT[0])
MANY = 65536


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    epochs: int = 12
    checkpoint_every: int = 6
    sizes: tuple[int, ...] = (2048, 8192)
    """Numbers of a sketch; `retrac train --record` takes 8192."""
    queries: int = 8
    """Training samples as queries, and as many generated images."""
    output: Path = Path("benchmarks/results/recording.json")


def main(settings: Settings) -> None:
    keep_freed_memory()
    config = TrainConfig(
        DatasetConfig("digits"),
        epochs=settings.epochs,
        checkpoint_every=settings.checkpoint_every,
        sample_count=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _, plain = _train(config, work / "plain", None)
        asked = f"train:{settings.queries}+generated:{settings.queries}"
        queries, plan = open_queries(plain, asked), PlanConfig()
        _, most = _train(config, work / "most", MANY)
        best = attribute(most, queries, METHODS, plan=plan, recorded=True)
        rows: list[dict[str, Any]] = []
        for size in settings.sizes:
            seconds, run = _train(config, work / f"size-{size}", size)
            again, _ = _train(config, work / "again", None)
            found = attribute(run, queries, METHODS, plan=plan, recorded=True)
            ranks = {
                method: agreement(best.scores_of(method).values, found.scores_of(method).values)
                for method in best.methods
            }
            same = _weights_are_the_same(plain, run)
            rows.append(
                {"numbers": size, "seconds": seconds, "plain": again, "same bits": same, **ranks}
            )
            shutil.rmtree(run.path)
            shutil.rmtree(work / "again")
    _report(rows, settings)


def _train(config: TrainConfig, output: Path, size: int | None) -> tuple[float, TrainedRun]:
    begun = time.perf_counter()
    run = train(config, output, None if size is None else RecordConfig(size))
    return time.perf_counter() - begun, run


def _weights_are_the_same(one: TrainedRun, other: TrainedRun) -> bool:
    first, second = (
        load_file(run.checkpoints[-1].path / "diffusion_pytorch_model.safetensors")
        for run in (one, other)
    )
    return all(torch.equal(first[name], second[name]) for name in first)


def _report(rows: list[dict[str, Any]], settings: Settings) -> None:
    table = Table(
        "numbers", "seconds", "plain", "ratio", "same bits",
        *(name for each in METHODS for name in (method_named(each).title, "least", "top 20")),
        title=f"recordings against one of {MANY:,} numbers",
    )  # fmt: skip
    for row in rows:
        cells = [
            f"{row[method][name]:.4f}" if name != "top 20" else f"{row[method][name]:.2f}"
            for method in METHODS
            for name in ("spearman", "least spearman", "top 20")
        ]
        table.add_row(
            f"{row['numbers']:,}",
            f"{row['seconds']:.1f}",
            f"{row['plain']:.1f}",
            f"{row['seconds'] / row['plain']:.2f}",
            "yes" if row["same bits"] else "NO",
            *cells,
        )
    Console(width=120).print(table)
    write_json(
        settings.output,
        {
            "command": " ".join(["python", "-m", "benchmarks.recording", *sys.argv[1:]]),
            "device": device_name("cpu"),
            "waiting threads": waiting(),
            "epochs": settings.epochs,
            "compared with": MANY,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
