"""How close scores in lower precision stay to those in float64, and how long they take.

    python -m benchmarks.precision RUN

Each precision scores the same queries at the last checkpoint, at the same draws and events. Written
to `benchmarks/results/precision.json`, with the device's name.
"""

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy.stats import spearmanr

import retrac
from retrac.attribution.config import PRECISIONS, AttributeConfig, ComputeConfig
from retrac.attribution.methods import by_events
from retrac.attribution.scorer import Scorer
from retrac.diffusion.device import choose_device
from retrac.files import write_json

REFERENCE = "float64"
TOP = 10

METHODS = tuple(method.name for method in by_events())


@dataclass(frozen=True)
class Precision:
    """Compare precisions on a run."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    queries: str = "train:8+generated:8"
    """As `retrac attribute` has them."""
    repeats: int = 3
    """Times that each is measured; the fastest counts."""
    device: str = "auto"
    """Where to compute."""
    output: Path = Path("benchmarks/results/precision.json")
    """The file to write."""

    def __call__(self) -> None:
        """Measure, print a table, write it down."""
        run = retrac.Run.open(self.run)
        queries = retrac.open_queries(run, self.queries)
        found: dict[str, dict[str, np.ndarray]] = {}
        seconds: dict[str, float] = {}
        for precision in PRECISIONS:
            if precision == "tf32" and choose_device(self.device).type != "cuda":
                continue
            found[precision], seconds[precision] = self._scores(run, queries, precision)
        rows = {name: self._row(found, seconds, name) for name in found}
        for name, row in rows.items():
            print(f"{name:9}", {key: round(value, 5) for key, value in row.items()})
        cuda = torch.cuda.is_available()
        place = torch.cuda.get_device_name() if cuda else platform.processor() or "CPU"
        about = {"run": run.path.name, "samples": run.size, "queries": len(queries)}
        write_json(self.output, {"device": place, "torch": torch.__version__, **about, **rows})

    def _scores(
        self, run: retrac.Run, queries: retrac.Queries, precision: Any
    ) -> tuple[dict[str, np.ndarray], float]:
        """Scores by method `[Q, N]`, and the seconds of the passes alone."""
        last, best = (run.checkpoints[-1].epoch,), float("inf")
        compute = ComputeConfig(precision=precision, device=self.device)  # type: ignore[arg-type]
        scorer = Scorer.of(run, AttributeConfig(METHODS, last, compute=compute))
        (replay,) = scorer.replays
        model = scorer.model(replay)
        split = scorer.split(model, len(queries))
        every, asked = np.arange(run.size), queries.asked(run, scorer.plan)
        visits = scorer.visits(replay, every)
        for _ in range(self.repeats):
            start = time.perf_counter()
            made = scorer.directions(
                model, replay, asked, queries.ids, split, lambda timesteps: None
            )
            scores = scorer.scores(model, replay, every, visits, made.directions, split)
            best = min(best, time.perf_counter() - start)
        return dict(zip(scorer.config.methods, scores.scores.astype(float), strict=True)), best

    @staticmethod
    def _row(
        found: dict[str, dict[str, np.ndarray]], seconds: dict[str, float], name: str
    ) -> dict[str, float]:
        row = {"time, float32 = 1": seconds[name] / seconds["float32"]}
        for method, exact in found[REFERENCE].items():
            scores = found[name][method]
            ranks = [spearmanr(a, b).statistic for a, b in zip(scores, exact, strict=True)]
            tops = [
                len({*np.argsort(-a)[:TOP]} & {*np.argsort(-b)[:TOP]}) / TOP
                for a, b in zip(scores, exact, strict=True)
            ]
            row[f"{method}: rank correlation, least of queries"] = float(min(ranks))
            row[f"{method}: of the first {TOP} the same"] = float(np.mean(tops))
            row[f"{method}: largest error, of the largest score"] = float(
                (abs(scores - exact).max(1) / abs(exact).max(1)).max()
            )
        return row


if __name__ == "__main__":
    tyro.cli(Precision)()
