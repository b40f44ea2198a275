"""Pack the losses of `retrac lds prepare` into a bank that comes with the package.

docs/leaderboard.md has the commands before this one.

    python -m benchmarks.truth runs/benchmark
    python -m benchmarks.truth runs/development --bank development
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from retrac.evaluation.retraining import Retraining
from retrac.evaluation.shipped import BENCHMARK, FILES, Shipped
from retrac.training.trained import TrainedRun

PACKAGE = Path(__file__).parents[1] / "src/retrac/evaluation"


@dataclass(frozen=True)
class Truth:
    run: tyro.conf.Positional[Path]
    bank: str = BENCHMARK
    """Which of `retrac.evaluation.shipped.FILES`."""

    def __call__(self) -> None:
        run = TrainedRun.open(self.run)
        output = PACKAGE / FILES[self.bank]
        Shipped.of(Retraining.open(run, run.path / "lds")).write(output)
        print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    tyro.cli(Truth)()
