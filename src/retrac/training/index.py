"""An index: sketches of every sample's gradients at every checkpoint, on disk.

A folder with `index.json`, which says how it was made, and one folder per checkpoint. There
`sketch-WEIGHT.zarr` holds `Σ_v (η_v/B_v) w(‖g_v‖) S(g_v)` of each sample in float16, each row
divided by its number in `scale-WEIGHT.zarr`, for each weight w of gradients; `norm.zarr` and
`timestep.zarr` tell of the visits. Which methods use a weight is not known here.
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
from retrac.files import PARTIAL, disk_refusal, read_json, remove, write_json
from retrac.gradients.allocation import Sides, Sizes, allocate, sketch_size
from retrac.gradients.sketch import Projection

CONFIG = "index.json"
FORMAT = 3
"""Of what the folder holds, and of the order in which a sketch's numbers lie."""
LARGEST = 1024.0
"""Of a row's numbers as stored: far from both ends of float16."""
CHUNK = 512
"""Samples in a piece that is written at one time, at the most."""
PILOT = 32
"""Samples at which it is measured where gradients are."""


@dataclass(frozen=True)
class Rows:
    """Some samples' part of an index at one checkpoint.

    Attributes:
        sketches: float32 `[W, S, d]`, by weight.
        norms: float32 `[S, V]`, of each visit's gradient, by its sketch.
        timesteps: int64 `[S, V]`.
    """

    sketches: np.ndarray
    norms: np.ndarray
    timesteps: np.ndarray


@dataclass(frozen=True)
class IndexedCheckpoint:
    """The sketches at one checkpoint, in the folder `path`, by the names of weights."""

    path: Path
    weights: tuple[str, ...]

    @staticmethod
    def create(
        path: Path, weights: Sequence[str], samples: int, size: int, visits: int, chunk: int
    ) -> "IndexedCheckpoint":
        """Begin an empty one, in place of whatever is there; filled `chunk` samples at a time.

        Raises:
            RetracError: no space left, or no permission.
        """
        with _writing(path):
            remove(path)
            path.mkdir(parents=True)
            for weight in weights:
                _array(path / f"sketch-{weight}.zarr", (samples, size), (chunk, size), "float16")
                _array(path / f"scale-{weight}.zarr", (samples,), (chunk,), "float32")
            _array(path / "norm.zarr", (samples, visits), (chunk, visits), "float32")
            _array(path / "timestep.zarr", (samples, visits), (chunk, visits), "int64")
            _array(path / "done.zarr", (-(-samples // chunk),), (1,), "bool")
        return IndexedCheckpoint(path, tuple(weights))

    @property
    def chunks(self) -> list[slice]:
        """The samples of each piece that is written at one time."""
        norms = self._open("norm", "r")
        samples, chunk = int(norms.shape[0]), int(norms.chunks[0])
        return [slice(at, min(at + chunk, samples)) for at in range(0, samples, chunk)]

    @property
    def missing(self) -> list[slice]:
        """Pieces that are not there yet."""
        done = self._read("done")
        return [samples for samples, is_done in zip(self.chunks, done, strict=True) if not is_done]

    def write(self, samples: slice, rows: Rows) -> None:
        """Fill one piece; it counts once all of it is on disk.

        Raises:
            RetracError: no space left, or what is there is damaged.
        """
        scale = np.abs(rows.sketches).max(axis=2) / LARGEST
        divisor = np.where(scale > 0, scale, 1)[..., None]
        stored = (rows.sketches / divisor).astype(np.float16)
        for place, weight in enumerate(self.weights):
            self._write(f"sketch-{weight}", samples, stored[place])
            self._write(f"scale-{weight}", samples, scale[place])
        self._write("norm", samples, rows.norms)
        self._write("timestep", samples, rows.timesteps)
        self._write("done", self.chunks.index(samples), True)

    def read(self, samples: slice) -> Rows:
        """Some samples' rows."""
        sketches = [
            self._read(f"sketch-{weight}", samples).astype(np.float32)
            * self._read(f"scale-{weight}", samples)[:, None]
            for weight in self.weights
        ]
        return Rows(
            np.stack(sketches), self._read("norm", samples), self._read("timestep", samples)
        )

    def _open(self, name: str, mode: Literal["r", "r+"]) -> Any:
        with self._refusing(name) as path:
            return zarr.open_array(str(path), mode=mode)

    def _read(self, name: str, part: Any = slice(None)) -> Any:
        array = self._open(name, "r")
        with self._refusing(name):
            return array[part]

    def _write(self, name: str, part: Any, values: Any) -> None:
        array = self._open(name, "r+")
        with _writing(self.path / f"{name}.zarr"):
            array[part] = values

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
        config: `index.json`: `kind` ("replayed" or "recorded"), `trained` (the run's identity, or
            its origin if recorded), `weights`, `replay`, `parameters`, `seed`, `asked`, `sizes`,
            `size`, `format`, and the `checkpoints` of one that is replayed.
    """

    path: Path
    config: Mapping[str, Any]

    @staticmethod
    def planned(path: Path, config: Mapping[str, Any]) -> "Index":
        """A new one; nothing is written until it is saved."""
        return Index(path, {**config, "format": FORMAT})

    @staticmethod
    def found(path: Path, settings: Mapping[str, Any]) -> "Index | None":
        """One that is there, as it will be with these settings; None if there is none.

        Checkpoints may be asked for that come after those it has: what it holds stays as it is,
        since each checkpoint stands for the epochs since the one before. Nothing is written until
        it is saved.

        Raises:
            RetracError: `path` holds an index of other settings, or something else.
        """
        if not (path / CONFIG).is_file():
            if path.exists() and not (path.is_dir() and _only_leftovers(path)):
                raise RetracError(f"{path} exists and is not an index; move it away")
            return None
        found = Index.open(path)
        found.refuse_other_training(settings["trained"])
        usual = {"precision": None} if "precision" in found.config else {}
        differing = [
            f"{name} was {found.config.get(name)}, now {value}"
            for name, value in {**usual, **settings}.items()
            if not _goes_on(name, found.config.get(name), value)
        ]
        if differing:
            raise RetracError(
                f"{path} holds an index of other settings ({'; '.join(differing)}): delete it, "
                "or give the same settings to go on with it"
            )
        return Index(path, {**found.config, **settings})

    def save(self) -> None:
        """Write `index.json`, unless it says so already.

        Before the first piece: what epochs a piece stands for depends on the checkpoints.

        Raises:
            RetracError: no space left, or no permission.
        """
        path = self.path / CONFIG
        if not path.is_file() or read_json(path) != self.config:
            write_json(path, self.config)

    @staticmethod
    def open(path: Path) -> "Index":
        """Open an index folder.

        Raises:
            RetracError: there is none, or it is damaged.
        """
        if not (path / CONFIG).is_file():
            raise RetracError(f"no index at {path}: it has no {CONFIG}")
        config = read_json(path / CONFIG)
        needed = {"kind", "trained", "weights", "replay", "parameters", "seed", "sizes", "size"}
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
    def weights(self) -> tuple[str, ...]:
        """Names of the weights under which it has added up gradients."""
        return tuple(self.config["weights"])

    @property
    def epochs(self) -> list[int]:
        """Epochs of the checkpoints that are wholly indexed."""
        found = (path for path in self.path.glob("epoch-*") if (path / "done.zarr").is_dir())
        return sorted(_epoch(path) for path in found if not self._at(path).missing)

    def checkpoint(self, epoch: int) -> IndexedCheckpoint:
        """The part of one checkpoint."""
        return self._at(self.path / f"epoch-{epoch:04d}")

    def _at(self, path: Path) -> IndexedCheckpoint:
        return IndexedCheckpoint(path, self.weights)

    def refuse_other_training(self, trained: str) -> None:
        """Refuse an index of another training than the one that this tells from others.

        Raises:
            RetracError: it is.
        """
        if self.config["trained"] != trained:
            raise RetracError(f"{self.path} is of another training: delete it and make it again")

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


def pilot(samples: int) -> np.ndarray:
    """Which of so many samples it is measured at where gradients are."""
    return np.linspace(0, samples, min(PILOT, samples), endpoint=False).astype(int)


def laid_out(sides: Mapping[str, Sides], asked: int) -> dict[str, Any]:
    """What `index.json` says of its sketches: `size`, and `sizes` of each parameter's part.

    Args:
        sides: where gradients are.
        asked: about how many numbers a sketch has.
    """
    sizes = allocate(sides, asked)
    return {
        "size": sketch_size(sides, sizes),
        "sizes": {name: list(kept) for name, kept in sizes.items()},
    }


def _goes_on(name: str, before: Any, now: Any) -> bool:
    """Whether an index with one value of a setting can go on with another."""
    if name == "checkpoints" and isinstance(before, list):
        return bool(now[: len(before)] == before)
    return bool(before == now)


def _only_leftovers(path: Path) -> bool:
    """Whether nothing is there but what was left when it was stopped before its first file."""
    return all(inner.suffix == PARTIAL for inner in path.iterdir())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell in one line what the disk refuses."""
    try:
        yield
    except Exception as error:
        if refusal := disk_refusal(error, path):
            raise refusal from error
        raise


def _array(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> None:
    fitting = tuple(max(1, min(size, chunk)) for size, chunk in zip(shape, chunks, strict=True))
    zarr.open_array(str(path), mode="w", shape=shape, chunks=fitting, dtype=dtype, fill_value=0)


def _epoch(path: Path) -> int:
    return int(path.name.removeprefix("epoch-"))
