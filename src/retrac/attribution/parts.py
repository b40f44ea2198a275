"""Finished pieces of long work, kept on disk until the whole is saved."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from retrac.errors import RetracError
from retrac.files import PARTIAL, read_json, remove, write_json, write_whole

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Left:
    """Work of which there are no pieces yet.

    Attributes:
        checkpoints: to be loaded.
        draws: gradients of the query side.
        visits: gradients of the train side.
    """

    checkpoints: int
    draws: int
    visits: int


class Parts:
    """A folder of arrays by name, for one setting of the work; or memory, without a folder.

    Args:
        folder: where pieces are kept; None keeps them in memory.
        settings: what decides the result. Pieces made under other settings are not mixed in.

    Raises:
        RetracError: the folder holds pieces of other settings, or something else.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._memory: dict[str, dict[str, np.ndarray]] = {}
        if folder is None:
            return
        if not any(folder.glob("*.npz")):  # nothing to mix anything into
            _refuse_foreign(folder)
            remove(folder)
            write_json(folder / SETTINGS, settings)
        elif read_json(folder / SETTINGS) != json.loads(json.dumps(settings)):
            raise RetracError(
                f"{folder} holds interrupted work with other settings: repeat that command to end "
                "it, choose another --output, or delete the folder"
            )

    def __contains__(self, name: str) -> bool:
        return name in self._memory or (self._folder is not None and self._path(name).is_file())

    @property
    def names(self) -> frozenset[str]:
        """Of all pieces that are there."""
        kept = self._folder.glob("*.npz") if self._folder is not None else ()
        return frozenset(self._memory) | frozenset(piece.stem for piece in kept)

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep a piece, whole or not at all."""
        if self._folder is None:
            self._memory[name] = arrays
            return
        with write_whole(self._path(name)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def get(self, name: str) -> dict[str, np.ndarray]:
        """A piece that was kept.

        Raises:
            RetracError: its file is damaged.
        """
        if self._folder is None:
            return self._memory[name]
        try:
            with np.load(self._path(name), allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise RetracError(
                f"{self._path(name)} is damaged ({error}); delete it and run again"
            ) from error

    def drop(self, name: str) -> None:
        """Forget a piece that others were made of, if it is there."""
        self._memory.pop(name, None)
        if self._folder is not None:
            self._path(name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget all pieces: the whole is saved."""
        self._memory.clear()
        if self._folder is not None:
            remove(self._folder)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}.npz"


def _refuse_foreign(folder: Path) -> None:
    """Refuse to delete what is not ours.

    Raises:
        RetracError: the folder has something else in it.
    """
    others = {SETTINGS, SETTINGS + PARTIAL}
    if folder.is_dir() and any(each.name not in others for each in folder.iterdir()):
        raise RetracError(
            f"{folder}, where pieces of the work would be kept, holds something else: move it "
            "away, or choose another --output"
        )


def parts_beside(path: Path) -> Path:
    """Where the pieces of a result at `path` are kept until it is whole."""
    return path.resolve().with_name(path.resolve().name + ".parts")


def kept_beside(path: Path) -> frozenset[str]:
    """Names of the pieces of a result at `path` that are kept."""
    return frozenset(piece.stem for piece in parts_beside(path).glob("*.npz"))
