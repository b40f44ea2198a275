"""`retrac index`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from retrac.influence.config import IndexConfig


@dataclass(frozen=True)
class Index:
    """Store sketches of every sample's gradients, so that `attribute --index` takes moments.

    Stopped at any moment, the same command goes on.
    """

    run: tyro.conf.Positional[Path]
    """The run folder; the index is its folder `index`."""
    config: tyro.conf.OmitArgPrefixes[IndexConfig] = field(default_factory=IndexConfig)

    def __call__(self) -> None:
        """Index, and say what there is now."""
        from retrac.influence.indexed import build_index
        from retrac.training.run import Run

        index = build_index(Run.open(self.run), self.config)
        print(
            f"{index.path}: {index.config['size']:,} numbers per sample, method and checkpoint; "
            f"{len(index.epochs)} checkpoints"
        )
