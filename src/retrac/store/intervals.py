"""Sums over the visits between two checkpoints, `Σ_v (η_v/B_v) w(‖g_v‖) S(g_v)` by weight w."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrac.store.feature import StoredFeature
from retrac.store.table import CHUNK, Column, Table

INTERVALS = "intervals"
"""Name of the feature."""
VISITS = "visits"
"""Of its tables the one that has no weight."""
SUMS = "sums"


@dataclass(frozen=True)
class IntervalRows:
    """What is stored of S samples.

    Attributes:
        sums: float32 `[S, d]`, by the weight's name.
        norms: float32 `[S, V]`, of each visit's gradient, by its sketch.
        timesteps: int64 `[S, V]`.
    """

    sums: Mapping[str, np.ndarray]
    norms: np.ndarray
    timesteps: np.ndarray


@dataclass(frozen=True)
class StoredInterval:
    """The feature at one checkpoint.

    Attributes:
        feature: it.
        epoch: of the checkpoint.
    """

    feature: StoredFeature
    epoch: int

    def begin(self, samples: int, visits: int, chunk: int = CHUNK) -> None:
        """Create the tables that are not there yet.

        Args:
            samples: N.
            visits: V of each.
            chunk: samples that are written at one time, unless tables that are there have others.

        Raises:
            RetracError: no space left, or no permission.
        """
        if self.is_begun:
            chunk = self.chunks[0].stop
        for name, table in self._tables.items():
            if not table.is_begun:
                columns = visit_columns(visits) if name == VISITS else sum_columns(self.feature)
                table.create(columns, samples, chunk)

    @property
    def chunks(self) -> list[slice]:
        """The samples that are written at one time."""
        return self._tables[VISITS].chunks

    @property
    def is_begun(self) -> bool:
        """Whether anything is there."""
        return self._tables[VISITS].is_begun

    @property
    def missing(self) -> list[slice]:
        """Chunks that some table lacks, or all where one was not begun."""
        tables = self._tables.values()
        lacking = [table.missing if table.is_begun else self.chunks for table in tables]
        return [chunk for chunk in self.chunks if any(chunk in each for each in lacking)]

    def write(self, samples: slice, rows: IntervalRows) -> None:
        """Fill a chunk of the tables that lack it.

        Raises:
            RetracError: no space left, or what is there is damaged.
        """
        visits = {"norm": rows.norms, "timestep": rows.timesteps}
        for name, table in self._tables.items():
            if samples in table.missing:
                table.write(samples, visits if name == VISITS else {SUMS: rows.sums[name]})

    def read(self, samples: slice, weights: Sequence[str]) -> IntervalRows:
        """Some samples' sums under some weights.

        Raises:
            RetracError: what is there is damaged.
        """
        tables = self._tables
        return IntervalRows(
            {weight: tables[weight].read(SUMS, samples) for weight in weights},
            tables[VISITS].read("norm", samples),
            tables[VISITS].read("timestep", samples),
        )

    @property
    def _tables(self) -> dict[str, Table]:
        """That of visits, and by weight; once the last is whole, all are."""
        names = (VISITS, *self.feature.weights)
        return {name: self.feature.table(self.epoch, name) for name in names}


def sum_columns(feature: StoredFeature) -> dict[str, Column]:
    """Of the table of a weight."""
    return {SUMS: Column((feature.layout.size,), "float16")}


def visit_columns(visits: int) -> dict[str, Column]:
    """Of the table of so many visits."""
    return {"norm": Column((visits,), "float32"), "timestep": Column((visits,), "int64")}
