"""`retrac plant`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from retrac.data.config import DatasetConfig, PlantConfig
from retrac.errors import RetracError


@dataclass(frozen=True)
class Plant:
    """Copy a dataset with planted outliers, for self-influence to find.

    Their ids begin with planted/, and `retrac evaluate` knows them by that.
    """

    output: Path
    """The .npz file to write, which `retrac train --dataset` takes."""
    data: tyro.conf.OmitArgPrefixes[DatasetConfig] = field(default_factory=DatasetConfig)
    config: tyro.conf.OmitArgPrefixes[PlantConfig] = field(default_factory=PlantConfig)

    def __call__(self) -> None:
        """Plant, write, and say what was planted."""
        from retrac.data.arrays import write_npz
        from retrac.data.planting import with_outliers

        if self.output.suffix != ".npz":
            raise RetracError(f"--output must end in .npz, not {self.output}")
        if self.output.exists():
            raise RetracError(f"{self.output} exists; choose another --output, or delete it")
        dataset = with_outliers(self.data, self.config)
        write_npz(dataset, self.output)
        told = ", ".join(f"{count} {kind}" for kind, count in self.config.counts.items())
        print(f"{self.output}: {len(dataset)} samples, of these planted: {told}")
