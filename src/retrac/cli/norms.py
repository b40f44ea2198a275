"""`retrac norms`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from retrac.attribution.config import ComputeConfig
from retrac.cli.estimate import announced


@dataclass(frozen=True)
class Norms:
    """Plot gradient norms against timesteps: of one sample, and of many where they were trained."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    sample: int = 0
    """Index of the sample."""
    timesteps: int = 100
    """Timesteps at which its norm is measured."""
    samples: int = 2000
    """At most so many samples at their training timesteps."""
    checkpoints: tuple[int, ...] = ()
    """Epochs of the checkpoints to use. Default: all."""
    output: Path | None = None
    """Folder of the result. Default: RUN/norms/sample-SAMPLE."""
    compute: tyro.conf.OmitArgPrefixes[ComputeConfig] = field(default_factory=ComputeConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Measure, draw, and say where the figures are."""
        from retrac.attribution.estimate import estimate_norms
        from retrac.attribution.norms import norms
        from retrac.report.norms import write_norms
        from retrac.training.run import Run

        run = Run.open(self.run)
        path = self.output or run.path / "norms" / f"sample-{self.sample:04d}"
        what = (self.sample, self.timesteps, self.samples, self.checkpoints, self.compute)
        if not announced(partial(estimate_norms, run, *what), path, self.dry_run):
            return
        result = norms(
            run,
            self.sample,
            timesteps=self.timesteps,
            samples=self.samples,
            checkpoints=self.checkpoints,
            compute=self.compute,
        )
        for written in write_norms(result, path):
            print(written)
