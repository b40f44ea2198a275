"""Sums over draws by bin of timesteps: of the gradients of some measurements, in parts."""

from dataclasses import dataclass

import numpy as np

from retrac.store.feature import StoredFeature
from retrac.store.table import Column, Table, rows_in_chunk

TIMESTEPS = "timesteps"
"""Name of the feature."""
ONE = "one"
"""The weight under which every gradient counts as it is, as it does in a mean."""
SUMS, COUNT = "sums", "count"


@dataclass(frozen=True)
class BinRows:
    """What is stored of S samples.

    Attributes:
        sums: float32 `[S, bins, R, G, d]`, of the gradients of R measurements in G parts.
        counts: int64 `[S, bins, G]`, draws.
    """

    sums: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class StoredBins:
    """The feature at one checkpoint.

    Attributes:
        feature: it; its `bins`, `measurements` and `parts` say how many there are.
        epoch: of the checkpoint.
    """

    feature: StoredFeature
    epoch: int

    @property
    def table(self) -> Table:
        """Where it is."""
        return self.feature.table(self.epoch, ONE)

    def begin(self, samples: int) -> None:
        """Create the table, if it is not there yet.

        Raises:
            RetracError: no space left, or no permission.
        """
        if not self.table.is_begun:
            columns = bin_columns(self.feature)
            self.table.create(columns, samples, rows_in_chunk(columns))

    def write(self, samples: slice, rows: BinRows) -> None:
        """Fill a chunk.

        Raises:
            RetracError: no space left, or what is there is damaged.
        """
        self.table.write(samples, {SUMS: rows.sums, COUNT: rows.counts})

    def read(self, which: int) -> tuple[np.ndarray, np.ndarray]:
        """All samples' sums `[N, R, G, d]` and counts `[N, G]` in one bin.

        Raises:
            RetracError: what is there is damaged.
        """
        every = slice(None)
        return self.table.read(SUMS, every, which), self.table.read(COUNT, every, which)


def bin_columns(feature: StoredFeature) -> dict[str, Column]:
    """Of its table."""
    config, size = feature.config, feature.layout.size
    bins, parts = int(config["bins"]), int(config["parts"])
    return {
        SUMS: Column((bins, len(config["measurements"]), parts, size), "float16", apart=1),
        COUNT: Column((bins, parts), "int64", apart=1),
    }
