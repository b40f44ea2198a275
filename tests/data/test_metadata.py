"""Captions beside images, as `datasets` has them."""

import json
from pathlib import Path

import numpy as np
import pytest

from retrac.data.config import DatasetConfig
from retrac.data.images import to_pil
from retrac.data.open import open_dataset
from retrac.errors import RetracError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, one of them in a subfolder, which is no label here."""
    for number, name in enumerate(("b.png", "a/c.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        to_pil(np.full((1, 8, 8), 50 * number, np.uint8)).save(path)
    return tmp_path


def labels(folder: Path) -> tuple[str, ...] | None:
    return open_dataset(DatasetConfig(str(folder))).labels


def test_jsonl(folder: Path) -> None:
    rows = [{"file_name": "b.png", "text": "two, b"}, {"file_name": "a/c.png", "text": "one"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert labels(folder) == ("one", "two, b")


def test_an_empty_caption_is_one(folder: Path) -> None:
    rows = ({"file_name": "b.png", "text": None}, {"file_name": "a/c.png", "text": "x"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert set(labels(folder)) == {"", "x"}


def test_csv_with_another_column(folder: Path) -> None:
    (folder / "metadata.csv").write_text('file_name,caption\nb.png,"two, b"\na/c.png,one\n')
    assert labels(folder) == ("one", "two, b")


def test_without_any_folders_are_labels(folder: Path) -> None:
    assert labels(folder) == ("a", "unlabelled")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"file_name": "b.png", "text": "x"}', r"c\.png has no caption"),
        ('{"file_name": "b.png", "prompt": "x"}', "must have in every row"),
        ('{"text": "x"}', "must have in every row"),
        ('{"file_name": ', "may be damaged"),
        ("[1]", "may be damaged"),
        ('{"file_name": "b.png", "text": ["x", "y"]}', "one text for each image, not"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(folder: Path, text: str, told: str) -> None:
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(RetracError, match=told):
        labels(folder)
