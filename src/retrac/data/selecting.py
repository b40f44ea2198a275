"""Some samples of a dataset, named by their ids, their label, or a file of ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrac.data.dataset import ImageDataset
from retrac.errors import RetracError, unknown


def selected(dataset: ImageDataset, expressions: Sequence[str]) -> np.ndarray:
    """The samples that any of some expressions names, int64, in order.

    Args:
        dataset: whose samples.
        expressions: `id:0012,0013` for ids, `label=cat` for all of a label, or `@FILE` for a file
            with an id on each line.

    Raises:
        RetracError: an expression of another form, or one that names what is not there.
    """
    found = [_selected(dataset, expression) for expression in expressions]
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def _selected(dataset: ImageDataset, expression: str) -> np.ndarray:
    if expression.startswith("id:"):
        return _by_id(dataset, expression.removeprefix("id:").split(","))
    if expression.startswith("@"):
        return _by_id(dataset, _lines(Path(expression[1:]).expanduser()))
    column, equals, value = expression.partition("=")
    if not equals:
        raise RetracError(
            f"{expression!r} names no samples: write id:ONE,TWO, label=NAME, or @FILE with an id "
            "on each line"
        )
    if column != "label" or dataset.labels is None:
        there = "label" if dataset.labels is not None else "none"
        raise RetracError(f"the samples have no column {column!r} (known: {there})")
    rows = np.flatnonzero(np.array(dataset.labels) == value)
    if not len(rows):
        raise unknown("label", value, set(dataset.labels))
    return rows


def _by_id(dataset: ImageDataset, ids: Sequence[str]) -> np.ndarray:
    places = {name: place for place, name in enumerate(dataset.ids)}
    for name in ids:
        if name not in places:
            raise RetracError(f"no sample has the id {name!r}: ids are such as {dataset.ids[0]!r}")
    return np.array([places[name] for name in ids], np.int64)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RetracError(f"{path} cannot be read ({error}): it must be a text file") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise RetracError(f"{path} names no samples: it must have an id on each line")
    return found
