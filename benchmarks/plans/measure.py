"""Fill the tables of some queries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from torch import Tensor

import retrac
from benchmarks.plans.tables import Samples, fill
from retrac.attribution.asked import pixels
from retrac.attribution.config import AttributeConfig
from retrac.attribution.queries import open_queries
from retrac.attribution.ranking import evenly_spread
from retrac.attribution.scorer import Scorer


@dataclass(frozen=True)
class Measure:
    """Fill tables; each takes a minute or two."""

    run: tyro.conf.Positional[Path]
    tables: Path
    """Folder of the tables."""
    checkpoint: int | None = None
    """Its epoch; default: the last."""
    queries: int = 4
    """Half of them training samples, half generated."""
    samples: int = 200
    """Training samples, evenly spread."""
    seed: int = 0
    """Of the draws."""
    at_most: int | None = None
    """New tables in this call."""

    def __call__(self) -> None:
        run = retrac.Run.open(self.run)
        epoch = self.checkpoint or run.checkpoints[-1].epoch
        folder = self.tables / run.path.name / f"epoch-{epoch:04d}"
        queries = {folder / f"{name}.npz": image for name, image in _queries(run, self.queries)}
        missing = [path for path in queries if not path.exists()][: self.at_most]
        if not missing:
            return
        scorer = Scorer.of(run, AttributeConfig(checkpoints=(epoch,)))
        (replay,) = scorer.replays
        model = scorer.model(replay)
        samples = Samples.of(run, model, replay, self.samples)
        for path in missing:
            fill(run, model, samples, queries[path], self.seed).save(path)
            print(path, flush=True)


def _queries(run: retrac.Run, count: int) -> list[tuple[str, Tensor]]:
    """Names and images: training samples, evenly spread, and generated ones."""
    chosen = evenly_spread(len(run.dataset), count // 2)
    trained = run.dataset.tensors(np.array(chosen))
    made = pixels(open_queries(run, f"generated:{count - len(chosen)}", 0).images)
    return [
        *((f"train-{index:04d}", image) for index, image in zip(chosen, trained, strict=True)),
        *((f"generated-{index}", image) for index, image in enumerate(made)),
    ]
