"""An index: sketches of every sample's gradients at every checkpoint, on disk.

A folder with `index.json`, which says how it was made, and one folder per checkpoint. There
`sketch.zarr` holds `Σ_v (η_v/B_v) w(‖g_v‖) S(g_v)` of each method and sample in float16, each row
divided by its number in `scale.zarr`; `norm.zarr` and `timestep.zarr` tell of the visits.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from retrac.errors import RetracError
from retrac.files import disk_refusal, read_json, remove, write_json
from retrac.gradients.sketch import Projection, Sizes

CONFIG = "index.json"
FORMAT = 2
"""Of the order in which a sketch's numbers lie, among others."""
LARGEST = 1024.0
"""Of a row's numbers as stored: far from both ends of float16."""


@dataclass(frozen=True)
class Rows:
    """Some samples' part of an index at one checkpoint.

    Attributes:
        sketches: float32 `[M, S, d]`.
        norms: float32 `[S, V]`, of each visit's gradient, by its sketch.
        timesteps: int64 `[S, V]`.
    """

    sketches: np.ndarray
    norms: np.ndarray
    timesteps: np.ndarray


@dataclass(frozen=True)
class IndexedCheckpoint:
    """The sketches at one checkpoint, in the folder `path`."""

    path: Path

    @staticmethod
    def create(
        path: Path, methods: int, samples: int, size: int, visits: int, chunk: int
    ) -> "IndexedCheckpoint":
        """Begin an empty one, in place of whatever is there; filled `chunk` samples at a time."""
        remove(path)
        path.mkdir(parents=True)
        _array(path / "sketch.zarr", (methods, samples, size), (1, chunk, size), "float16")
        _array(path / "scale.zarr", (methods, samples), (methods, chunk), "float32")
        _array(path / "norm.zarr", (samples, visits), (chunk, visits), "float32")
        _array(path / "timestep.zarr", (samples, visits), (chunk, visits), "int64")
        _array(path / "done.zarr", (-(-samples // chunk),), (1,), "bool")
        return IndexedCheckpoint(path)

    @property
    def chunk(self) -> int:
        """Samples in a piece that is written at one time."""
        return int(self._open("scale", "r").chunks[1])

    @property
    def chunks(self) -> list[slice]:
        """The samples of each piece."""
        samples = self._open("scale", "r").shape[1]
        return [slice(at, min(at + self.chunk, samples)) for at in range(0, samples, self.chunk)]

    @property
    def missing(self) -> list[slice]:
        """Pieces that are not there yet."""
        done = self._read("done")
        return [samples for samples, is_done in zip(self.chunks, done, strict=True) if not is_done]

    def write(self, samples: slice, rows: Rows) -> None:
        """Fill one piece; it counts once all of it is on disk."""
        scale = np.abs(rows.sketches).max(axis=2) / LARGEST
        divisor = np.where(scale > 0, scale, 1)[..., None]
        self._open("sketch", "r+")[:, samples] = (rows.sketches / divisor).astype(np.float16)
        self._open("scale", "r+")[:, samples] = scale
        self._open("norm", "r+")[samples] = rows.norms
        self._open("timestep", "r+")[samples] = rows.timesteps
        self._open("done", "r+")[samples.start // self.chunk] = True

    def read(self, samples: slice) -> Rows:
        """Some samples' rows."""
        of_all = (slice(None), samples)
        scale = self._read("scale", of_all)
        sketches = self._read("sketch", of_all).astype(np.float32) * scale[..., None]
        return Rows(sketches, self._read("norm", samples), self._read("timestep", samples))

    def _open(self, name: str, mode: Literal["r", "r+"]) -> Any:
        with self._refusing(name) as path:
            return zarr.open_array(str(path), mode=mode)

    def _read(self, name: str, part: Any = slice(None)) -> Any:
        array = self._open(name, "r")
        with self._refusing(name):
            return array[part]

    @contextmanager
    def _refusing(self, name: str) -> Iterator[Path]:
        path = self.path / f"{name}.zarr"
        try:
            yield path
        except Exception as error:  # zarr's versions and its codecs each have their own
            raise disk_refusal(error, path) or RetracError(
                f"{path} is damaged ({error}): delete {self.path.parent} and make it again"
            ) from error


@dataclass(frozen=True)
class Index:
    """An index folder.

    Attributes:
        path: the folder.
        config: `index.json`: `kind` ("replayed" or "recorded"), `trained` (the run's identity),
            `methods`, `replay`, `parameters`, `seed`, `sizes`, `size`, `format`.
    """

    path: Path
    config: Mapping[str, Any]

    @staticmethod
    def begin(path: Path, config: Mapping[str, Any]) -> "Index":
        """Begin an index, or go on with one of the same settings.

        Raises:
            RetracError: `path` holds an index of other settings, or something else.
        """
        if (path / CONFIG).is_file():
            found = Index.open(path)
            differing = [
                f"{name} was {found.config.get(name)}, now {value}"
                for name, value in config.items()
                if name != "sizes" and found.config.get(name) != value
            ]
            if differing:
                raise RetracError(
                    f"{path} holds an index of other settings ({'; '.join(differing)}): delete it, "
                    "or give the same settings to go on with it"
                )
            return found
        if path.exists() and any(path.iterdir()):
            raise RetracError(f"{path} exists and is not an index; move it away")
        write_json(path / CONFIG, {**config, "format": FORMAT})
        return Index.open(path)

    @staticmethod
    def open(path: Path) -> "Index":
        """Open an index folder.

        Raises:
            RetracError: there is none, or it is damaged.
        """
        if not (path / CONFIG).is_file():
            raise RetracError(f"no index at {path}: it has no {CONFIG}")
        config = read_json(path / CONFIG)
        needed = {"kind", "trained", "methods", "replay", "parameters", "seed", "sizes", "size"}
        if missing := needed - config.keys():
            raise RetracError(f"{path / CONFIG} is damaged: it lacks {min(missing)!r}")
        if config.get("format") != FORMAT:
            raise RetracError(
                f"{path} was made by another version of diffusion-retrac (format "
                f"{config.get('format')}, now {FORMAT}): delete it and make it again"
            )
        return Index(path, config)

    @property
    def sizes(self) -> Sizes:
        """What each parameter's sketch keeps."""
        return {name: (int(a), int(b)) for name, (a, b) in self.config["sizes"].items()}

    @cached_property
    def projection(self) -> Projection:
        """The projection that made the sketches."""
        return Projection(int(self.config["seed"]), self.sizes)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods whose weights of gradients it holds."""
        return tuple(self.config["methods"])

    @property
    def epochs(self) -> list[int]:
        """Epochs of the checkpoints that are wholly indexed."""
        found = (path for path in self.path.glob("epoch-*") if (path / "done.zarr").is_dir())
        return sorted(_epoch(path) for path in found if not IndexedCheckpoint(path).missing)

    def checkpoint(self, epoch: int) -> IndexedCheckpoint:
        """The part of one checkpoint."""
        return IndexedCheckpoint(self.path / f"epoch-{epoch:04d}")

    def require(self, epochs: Sequence[int]) -> None:
        """Refuse an index that lacks some checkpoint.

        Raises:
            RetracError: it does.
        """
        if missing := sorted(set(epochs) - set(self.epochs)):
            raise RetracError(
                f"{self.path} is not whole: the checkpoint of epoch {missing[0]} is not indexed; "
                "repeat the command that made it"
            )


def _array(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> None:
    fitting = tuple(max(1, min(size, chunk)) for size, chunk in zip(shape, chunks, strict=True))
    zarr.open_array(str(path), mode="w", shape=shape, chunks=fitting, dtype=dtype, fill_value=0)


def _epoch(path: Path) -> int:
    return int(path.name.removeprefix("epoch-"))
