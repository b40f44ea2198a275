"""Pack the losses of `retrac lds prepare` into the benchmark that comes with the package.

docs/leaderboard.md has the commands before this one.

    python -m benchmarks.truth runs/benchmark
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from retrac.evaluation.retraining import Retraining
from retrac.evaluation.shipped import PLACE, Shipped
from retrac.training.trained import TrainedRun

PACKAGE = Path(__file__).parents[1] / "src/retrac/evaluation"


@dataclass(frozen=True)
class Truth:
    run: tyro.conf.Positional[Path]
    output: Path = PACKAGE / PLACE

    def __call__(self) -> None:
        run = TrainedRun.open(self.run)
        Shipped.of(Retraining.open(run, run.path / "lds")).write(self.output)
        print(f"{self.output}: {self.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    tyro.cli(Truth)()
