"""`retrac train`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from retrac.cli.estimate import announced
from retrac.errors import RetracError
from retrac.training.config import RecordConfig, TrainConfig


@dataclass(frozen=True)
class Train:
    """Train a diffusion model so that every event can be replayed.

    A named dataset brings its published training settings as defaults; see them with
    `retrac train --dataset NAME --help`. Stopped at any moment, the same command goes on.
    """

    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The run folder to write, such as runs/digits."""
    record: bool = False
    """Record every visit's gradient, in sketches, at the weights it met: `attribute --recorded`
    then needs no gradients of samples. Weights are the same bits with and without. Until a
    checkpoint comes, sums are held in memory, and in the rolling state: 320 KB per sample with
    8192 numbers and 8 bins."""
    sketch_size: int = 8192
    """With --record: about how many numbers a sketch has."""
    record_bins: int = 8
    """With --record: equal parts of the timesteps by which gradients are added up for
    kernel-retrac."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Train and say where the run is."""
        from accelerate import PartialState

        from retrac.data.open import open_dataset
        from retrac.training.estimate import estimate_training
        from retrac.training.loop import train

        if self.output is None:
            raise RetracError("train needs --output, the run folder to write")
        wanted = RecordConfig(self.sketch_size, self.record_bins)
        record = wanted if self.record else None
        dataset = open_dataset(self.config.data)
        measure = partial(estimate_training, self.config, dataset, self.output, record)
        if not announced(measure, self.output, self.dry_run):
            return
        run = train(self.config, self.output, record, dataset)
        PartialState().print(  # one of several processes is enough
            f"{run.path}: {len(run.checkpoints)} checkpoints, loss curve in {run.path}/loss.png"
        )
