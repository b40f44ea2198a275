"""A table on disk: a row for each sample, written a chunk of rows at a time.

A folder with one zarr array for each column. Numbers in float16 are divided by a scale, one for
each vector along the last axis, so that vectors of any length keep three digits. `done.zarr` says
which rows are whole.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from retrac.errors import RetracError
from retrac.files import disk_refusal, remove

LARGEST = 1024.0
"""Of a vector's numbers as stored: far from both ends of float16."""
CHUNK = 512
"""Rows that are written at one time, at the most."""
CHUNK_BYTES = 64 * 2**20
"""Of such rows in float32, at the most."""
DONE = "done"


@dataclass(frozen=True)
class Column:
    """What each row has in one column.

    Attributes:
        shape: of a row's values.
        kind: how they are stored; float16 has scales.
        apart: how many of the first axes of `shape` are read one index at a time.
    """

    shape: tuple[int, ...]
    kind: Literal["float16", "float32", "int64"]
    apart: int = 0


@dataclass(frozen=True)
class Table:
    """The table in the folder `path`."""

    path: Path

    @property
    def is_begun(self) -> bool:
        """Whether it is there, whole or not."""
        return (self.path / f"{DONE}.zarr").is_dir()

    @property
    def is_whole(self) -> bool:
        """Whether all of its rows are there."""
        return self.is_begun and not self.missing

    def create(self, columns: Mapping[str, Column], rows: int, chunk: int = CHUNK) -> None:
        """Begin it empty, in place of whatever is there.

        Args:
            columns: by name.
            rows: how many there will be.
            chunk: rows that are written at one time.

        Raises:
            RetracError: no space left, or no permission.
        """
        with _writing(self.path):
            remove(self.path)
            self.path.mkdir(parents=True)
            for name, column in columns.items():
                self._create(name, column, rows, chunk)
                if column.kind == "float16":
                    scale = Column(column.shape[:-1], "float32", column.apart)
                    self._create(_scale(name), scale, rows, chunk)
            self._create(DONE, Column((), "int64"), rows, chunk)

    @property
    def chunks(self) -> list[slice]:
        """The rows that are written at one time."""
        done = self._open(DONE)
        rows, chunk = int(done.shape[0]), int(done.chunks[0])
        return [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]

    @property
    def missing(self) -> list[slice]:
        """Chunks that are not there yet."""
        done = self.read(DONE)
        return [rows for rows in self.chunks if not done[rows].all()]

    def write(self, rows: slice, values: Mapping[str, np.ndarray]) -> None:
        """Fill one chunk; it counts once all of it is on disk.

        Args:
            rows: one of `chunks`.
            values: of each column.

        Raises:
            RetracError: no space left, or what is there is damaged.
        """
        for name, column in values.items():
            if self._open(name).dtype == np.float16:
                scale = np.abs(column).max(axis=-1) / LARGEST
                self._write(_scale(name), rows, scale)
                column = column / np.where(scale > 0, scale, 1)[..., None]
            self._write(name, rows, column)
        self._write(DONE, rows, 1)

    def read(self, name: str, *part: slice | int) -> np.ndarray:
        """Read a column, or a part of it: rows first, then along the axes of `Column.apart`.

        Raises:
            RetracError: what is there is damaged.
        """
        values = self._read(name, part)
        if values.dtype != np.float16:
            return values
        wide = values.astype(np.float32)
        wide *= self._read(_scale(name), part)[..., None]
        return wide

    def _create(self, name: str, column: Column, rows: int, chunk: int) -> None:
        shape = (rows, *column.shape)
        chunks = (chunk, *(1,) * column.apart, *column.shape[column.apart :])
        zarr.open_array(
            str(self._at(name)),
            mode="w",
            shape=shape,
            chunks=tuple(max(1, min(sizes)) for sizes in zip(shape, chunks, strict=True)),
            dtype=column.kind,
            fill_value=0,
        )

    def _at(self, name: str) -> Path:
        return self.path / f"{name}.zarr"

    def _open(self, name: str, mode: Literal["r", "r+"] = "r") -> Any:
        with self._refusing(name):
            return zarr.open_array(str(self._at(name)), mode=mode)

    def _read(self, name: str, part: tuple[slice | int, ...]) -> np.ndarray:
        array = self._open(name)
        with self._refusing(name):
            return np.asarray(array[part or slice(None)])

    def _write(self, name: str, rows: slice, values: Any) -> None:
        array = self._open(name, "r+")
        with _writing(self._at(name)):
            array[rows] = values

    @contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # zarr's versions and its codecs each have their own
            path = self._at(name)
            raise disk_refusal(error, path) or RetracError(
                f"{path} is damaged ({error}): delete {self.path} and make it again"
            ) from error


def rows_in_chunk(columns: Mapping[str, Column]) -> int:
    """How many rows of some columns fit into a chunk."""
    numbers = sum(prod(column.shape) for column in columns.values())
    return max(1, min(CHUNK, CHUNK_BYTES // (4 * numbers)))


def _scale(name: str) -> str:
    return f"{name}-scale"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one line what the disk refuses."""
    try:
        yield
    except Exception as error:
        if refusal := disk_refusal(error, path):
            raise refusal from error
        raise
