"""`retrac index`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from retrac.attribution.config import IndexConfig
from retrac.cli.estimate import announced


@dataclass(frozen=True)
class Index:
    """Store sketches of every sample's gradients, so that `attribute --index` takes moments.

    Stopped at any moment, the same command goes on; after further training it adds the checkpoints
    that are new.
    """

    run: tyro.conf.Positional[Path]
    """The run folder; the index is its folder `index`."""
    config: tyro.conf.OmitArgPrefixes[IndexConfig] = field(default_factory=IndexConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Index, and say what there is now."""
        from retrac.attribution.estimate import estimate_index
        from retrac.attribution.indexed import INDEX, build_index
        from retrac.training.run import Run

        run = Run.open(self.run)
        measure = partial(estimate_index, run, self.config)
        if not announced(measure, run.path / INDEX, self.dry_run):
            return
        index = build_index(run, self.config)
        print(
            f"{index.path}: {index.config['size']:,} numbers per sample, method and checkpoint; "
            f"{len(index.epochs)} checkpoints"
        )
