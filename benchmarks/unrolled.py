"""Does the derivative through a window of training foretell what happens without some samples?

On the benchmark's run, trained again with a checkpoint after each epoch: windows of several
lengths are carried back by `unrolled`, and replayed without random sets of samples of 10 % and of
1 %. Rank correlations, means over queries, between foretold and replayed changes of the queries'
losses stand beside those of TracIn and ReTrac over the same window, whose sums over a set foretell
likewise. Seconds are of this process, in plain windows of the product's trainer.

    python -m benchmarks.unrolled --epochs 1 2 5 10 20 50
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from retrac.attribution.attribute import attribute
from retrac.attribution.calibration import Calibration, random_sets
from retrac.attribution.config import AttributeConfig, PlanConfig
from retrac.attribution.engine import Engine
from retrac.attribution.parts import Parts
from retrac.attribution.queries import open_queries
from retrac.attribution.unrolled_work import UnrolledWork
from retrac.evaluation.shipped import Shipped
from retrac.files import read_json, write_json
from retrac.training.loop import train
from retrac.training.trained import TrainedRun

RUN = Path("runs/benchmark-every")
RESULTS = Path("benchmarks/results/unrolled.json")
SHARES = (0.1, 0.01)
OTHERS = ("tracin", "retrac")
QUERIES = "train:6+generated:6"


@dataclass(frozen=True)
class Settings:
    epochs: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    """Lengths of windows."""
    start: int = 250
    """Whole epochs before each."""
    sets: int = 40
    """Random sets of each size."""


def main(settings: Settings) -> None:
    run = every_checkpoint()
    found: dict[str, Any] = read_json(RESULTS) if RESULTS.is_file() else {"windows": {}}
    for length in settings.epochs:
        name = f"{settings.start}+{length}"
        if name not in found["windows"]:
            found["windows"][name] = window(run, settings.start, length, settings.sets)
            write_json(RESULTS, found)
    show(found["windows"])


def every_checkpoint() -> TrainedRun:
    """The benchmark's run, with a checkpoint after each epoch."""
    config = replace(Shipped.load().training, checkpoint_every=1, sample_count=0)
    return train(config, RUN)


def window(run: TrainedRun, start: int, length: int, sets: int) -> dict[str, Any]:
    """What all methods foretell over one window, and what became of it."""
    queries = open_queries(run, QUERIES, seed=7)
    config = AttributeConfig(
        ("unrolled",),
        (start + length,),
        plan=PlanConfig(plan="fast"),
        from_epoch=start,
        calibration_sets=sets,
    )
    unrolled = Engine.of(run, config).unrolled
    assert unrolled is not None
    work, parts = unrolled.work(queries), Parts(None, {})
    plain = seconds_of_plain(work)
    single = seconds(lambda: unrolled.work(queries.take([0])).carry_back(Parts(None, {})))
    eight = seconds(lambda: unrolled.work(queries.take(range(8))).carry_back(Parts(None, {})))
    work.do(parts)
    calibration = work.calibration(parts)
    assert calibration is not None
    scores = {"unrolled": work.assemble(parts)}
    others = attribute(
        run,
        queries,
        OTHERS,
        checkpoints=tuple(range(start + 1, start + length + 1)),
        replay="all",
        plan=PlanConfig(plan="fast"),
    )
    scores |= {name: others.scores_of(name).values for name in OTHERS}
    told: dict[str, Any] = {
        "steps": len(work.window().steps),
        "plain seconds": plain,
        "one query, in plain windows": single / plain,
        "eight queries, in plain windows": eight / plain,
        "first ten": {
            "foretold": calibration.first_foretold.tolist(),
            "replayed": calibration.first_replayed.tolist(),
        },
        "left out": {},
    }
    for share in SHARES:
        chosen = random_sets(run.size, sets, share)
        work.bank.replay(chosen)
        network = work.window()
        none = work.losses(network, np.array([], int))
        replayed = np.stack([work.losses(network, each) - none for each in chosen], 1)
        told["left out"][f"{share:.0%}"] = {
            method: summary(values, chosen, replayed) for method, values in scores.items()
        }
    rmtree(work.bank.path)
    return told


def summary(scores: np.ndarray, sets: list[np.ndarray], replayed: np.ndarray) -> dict[str, Any]:
    foretold = np.stack([scores[:, each].sum(1) for each in sets], 1).astype(float)
    found = Calibration(foretold, replayed, foretold[:, 0], replayed[:, 0])
    return {"spearman": asdict(found.correlation), "slope": asdict(found.slope)}


def seconds_of_plain(work: UnrolledWork) -> float:
    window = work.window()

    def take() -> None:
        for step in window.steps:
            window.take(step)

    window.take(window.steps[0])  # with what is set up
    window = work.window()
    return seconds(take)


def seconds(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def show(windows: dict[str, Any]) -> None:
    table = Table("window", "left out", "unrolled", "slope", *OTHERS, "1 query", "8 queries")
    for name, told in windows.items():
        for share, found in told["left out"].items():
            table.add_row(
                name,
                share,
                interval(found["unrolled"]["spearman"]),
                interval(found["unrolled"]["slope"]),
                *(interval(found[method]["spearman"]) for method in OTHERS),
                f"{told['one query, in plain windows']:.1f}",
                f"{told['eight queries, in plain windows']:.1f}",
            )
    Console(width=140).print(table, f"{torch.get_num_threads()} threads")


def interval(told: dict[str, float]) -> str:
    return f"{told['value']:.2f} ({told['low']:.2f} to {told['high']:.2f})"


if __name__ == "__main__":
    main(tyro.cli(Settings))
