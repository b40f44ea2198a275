"""Results on disk: a labelled dataset in zarr, and beside it how it was computed."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retrac.data.images import to_pil
from retrac.errors import RetracError
from retrac.files import read_json, write_whole

SCORES = "scores.zarr"
CONFIG = "config.json"
LONG = 80
"""Letters that are told of a setting, at the most."""
FACTS = ("run", "reached")
"""What a result tells beside its settings."""


def save_result(
    path: Path,
    kind: str,
    dataset: xr.Dataset,
    config: Mapping[str, Any],
    queries: Sequence[np.ndarray] = (),
) -> None:
    """Write the folder `path`: `scores.zarr`, `config.json`, `queries/`, whole or not at all.

    An earlier result of the same kind is replaced.

    Args:
        path: the folder.
        kind: what the result is, for people.
        dataset: the numbers.
        config: how they were computed, as JSON values.
        queries: uint8 images `[C, H, W]`, written as PNG.

    Raises:
        RetracError: `path` holds something else, or no space is left; what was there still is.
    """
    refuse_foreign(path, kind)
    with write_whole(path) as folder:
        folder.mkdir()
        for index, image in enumerate(queries):
            (folder / "queries").mkdir(exist_ok=True)
            to_pil(image).save(folder / "queries" / f"query-{index:04d}.png")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr on string arrays
            dataset.to_zarr(folder / SCORES, zarr_format=2, consolidated=True)
        told = json.dumps({"kind": kind, **config}, indent=2)
        (folder / CONFIG).write_text(told + "\n", encoding="utf-8")


def open_result(path: Path, kind: str) -> tuple[xr.Dataset, dict[str, Any]]:
    """Read what `save_result` wrote.

    Raises:
        RetracError: absent, of another kind, or damaged.
    """
    if not (path / CONFIG).is_file() or not (path / SCORES).is_dir():
        raise RetracError(
            f"{path} is not an {kind}: it lacks {CONFIG} or {SCORES}; choose another folder"
        )
    config = read_json(path / CONFIG)
    if config.pop("kind", None) != kind:
        raise RetracError(
            f"{path} holds another kind of result, not an {kind}; choose another folder"
        )
    try:
        return xr.open_zarr(path / SCORES).load(), config
    except Exception as error:  # zarr, numcodecs and xarray each have their own
        raise RetracError(
            f"{path / SCORES} is damaged ({error}): delete {path} and compute it again"
        ) from error


def refuse_foreign(path: Path, kind: str) -> None:
    """Refuse to replace anything but an earlier result of the same kind, or an empty folder.

    Raises:
        RetracError: `path` holds something else.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if (path / CONFIG).is_file() and read_json(path / CONFIG).get("kind") == kind:
        return
    raise RetracError(f"{path} holds something other than an {kind}; choose another --output")


def refuse_other(
    path: Path,
    found: Mapping[str, Any],
    settings: Mapping[str, Any],
    unknown: Sequence[str] = (),
) -> None:
    """Refuse to take a result for one of other settings.

    Args:
        path: of the result.
        found: its settings and facts.
        settings: that are wanted; what stands in one of both alone has the usual value in the
            other.
        unknown: names of settings that cannot be told yet.

    Raises:
        RetracError: they differ; says in what.
    """
    differences = [
        f"{name} was {_told(found.get(name))}, now {_told(settings.get(name))}"
        for name in {**found, **settings}
        if name not in (*FACTS, *unknown) and found.get(name) != settings.get(name)
    ]
    if differences:
        raise RetracError(
            f"{path} holds a result of other settings ({'; '.join(differences)}): choose another "
            "--output, or delete it"
        )


def _told(value: Any) -> str:
    if value is None:
        return "the usual"
    told = str(value)
    return told if len(told) <= LONG else f"{told[:LONG]}…"
