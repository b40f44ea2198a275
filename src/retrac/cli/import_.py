"""`retrac import`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from retrac.training.config import ImportConfig


@dataclass(frozen=True)
class Import:
    """Take in a training of the paper's published code, to be asked like any run.

    Its network, schedule and loss are known here, its `ckpt_EPOCH_STEP.pth` files have the weights
    and the events. They are read as tensors and lists, and anything else in them is refused; what
    is used is copied into the run folder. The files know samples by their places alone, so the
    dataset must be the one of the training, in the same order.
    """

    folder: tyro.conf.Positional[Path]
    """The folder with the files: `--output_dir` of the published train.py."""
    output: Path
    """The run folder to write."""
    config: tyro.conf.OmitArgPrefixes[ImportConfig]

    def __call__(self) -> None:
        """Import, and say what may be asked."""
        from retrac.training.imported import import_published

        run = import_published(self.folder, self.config, self.output)
        print(f"{run.path}:")
        for name in ("network", "checkpoints", "samples", "samples without an event", "events"):
            print(f"  {name}: {run.facts[name]}")
