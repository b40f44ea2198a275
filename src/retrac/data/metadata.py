"""Captions of a folder of images, in the file beside them that `datasets` reads, too."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrac.errors import RetracError

FILES = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("text", "caption", "label")
"""In the order in which they are looked for."""


def captions(folder: Path) -> Mapping[str, str] | None:
    """The caption of each image by its path in the folder; None where no file has them.

    Raises:
        RetracError: the file is damaged, or lacks file names or captions.
    """
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        rows = _rows(file)
    except (OSError, ValueError, csv.Error) as error:
        raise RetracError(f"{file} cannot be read ({error}); it may be damaged") from error
    column = next((name for name in COLUMNS if rows and name in rows[0]), None)
    if column is None or not all("file_name" in row and column in row for row in rows):
        raise RetracError(
            f"{file} must have in every row a file_name and one of {', '.join(COLUMNS)}"
        )
    return {str(row["file_name"]): one_text(row[column], str(file)) for row in rows}


def one_text(value: Any, where: str) -> str:
    """A label or caption as a text; empty where there is none.

    Args:
        value: of a cell.
        where: it stands, for errors.

    Raises:
        RetracError: it is a list: which of them was an image's is not known.
    """
    if isinstance(value, list | tuple | dict):
        raise RetracError(f"{where} must hold one text for each image, not {value!r}")
    return "" if value is None else str(value)


def _rows(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".csv":
        return list(csv.DictReader(text.splitlines()))
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    return rows
