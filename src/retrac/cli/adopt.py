"""`retrac adopt`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from retrac.training.config import AdoptConfig

TOLD = ("network", "samples", "image", "the network sees", "it is told", "loss", "events")
"""Of the run's facts, those that show a mistake."""


@dataclass(frozen=True)
class Adopt:
    """Take in a model that was trained elsewhere, to be asked like any run.

    If its training asked a `retrac.Ledger` for timesteps and noise, say after how many epochs its
    weights were saved, and its events are replayed. If nobody knows them, some are sampled in their
    place, and scores are expectations over events, not a replay. Nothing is copied; the folders
    must stay where they are.
    """

    output: Path
    """The run folder to write."""
    config: tyro.conf.OmitArgPrefixes[AdoptConfig]

    def __call__(self) -> None:
        """Adopt, and say what may be asked."""
        from retrac.training.adopted import adopt

        run = adopt(self.config, self.output)
        print(f"{run.path}:")
        for name in TOLD:
            print(f"  {name}: {run.facts[name]}")
        print(f"  --checkpoints {' '.join(str(point.epoch) for point in run.checkpoints)}")
        if run.objective.process.prediction == "x0" and run.config.weighting == "none":
            print("diffusers' train_unconditional.py trains such a model with --weighting snr")
        if not run.config.epochs:
            print("a single event says little of a sample: attribute with --replay 8 or more")
