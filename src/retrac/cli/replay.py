"""`retrac replay`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from retrac.cli.estimate import announced
from retrac.training.config import ReplayConfig


@dataclass(frozen=True)
class Replay:
    """Train again from a checkpoint, without some samples: what would the model have become?

    Everything else is the run's own: events, order, noises, learning rates, the optimiser's state.
    The result is a run that generates from the same noises. Can be stopped at any moment.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    output: Path
    """The run folder to write."""
    without: tuple[str, ...] = ()
    """Samples to leave out: id:ONE,TWO for ids, label=NAME for all of a label, or @FILE with an id
    on each line."""
    weights: Path | None = None
    """CSV file with the columns id and weight: how much samples count; those not named count 1."""
    config: tyro.conf.OmitArgPrefixes[ReplayConfig] = field(default_factory=ReplayConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Replay, and say where the run is."""
        import numpy as np

        from retrac.data.selecting import selected
        from retrac.training.estimate import estimate_replay
        from retrac.training.replaying import replay
        from retrac.training.sample_weights import read_weights
        from retrac.training.trained import TrainedRun

        run = TrainedRun.open(self.run)
        dataset = run.dataset
        counted = np.ones(run.size) if self.weights is None else read_weights(self.weights, dataset)
        counted[selected(dataset, self.without)] = 0
        measure = partial(estimate_replay, run, counted, self.config, self.output)
        if not announced(measure, self.output, self.dry_run):
            return
        done = replay(run, counted, self.config, self.output)
        print(
            f"{done.path}: epochs {done.from_epoch + 1} to {done.config.epochs} of {run.path} "
            f"again, without {(counted == 0).sum()} of {run.size} samples"
        )
