"""`retrac index`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from retrac.attribution.config import IndexConfig
from retrac.cli.estimate import announced


@dataclass(frozen=True)
class Index:
    """Store what methods need of every sample, so that `attribute --index` takes moments.

    Stopped at any moment, the same command goes on; after further training it adds the checkpoints
    that are new, and with other --methods what these need.
    """

    run: tyro.conf.Positional[Path]
    """The run folder; the index is its folder `index`."""
    config: tyro.conf.OmitArgPrefixes[IndexConfig] = field(default_factory=IndexConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Index, and say what there is now."""
        from retrac.attribution.build_index import build_index
        from retrac.attribution.estimate import estimate_index
        from retrac.attribution.indexed import INDEX
        from retrac.training.run import Run

        run = Run.open(self.run)
        measure = partial(estimate_index, run, self.config)
        if not announced(measure, run.path / INDEX, self.dry_run):
            return
        index = build_index(run, self.config)
        for name, feature in index.features.items():
            checkpoints = len(feature.begun())
            print(
                f"{index.path}: {name}, in sketches of {feature.layout.size:,} numbers; "
                f"{checkpoints} checkpoint{'s' if checkpoints != 1 else ''}"
            )
