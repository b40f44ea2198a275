"""Naming samples by id, label or file."""

from pathlib import Path

import numpy as np
import pytest

from retrac.data.dataset import ImageDataset
from retrac.data.selecting import selected
from retrac.errors import RetracError

IMAGES = np.zeros((5, 1, 2, 2), np.uint8)
PETS = ImageDataset("pets", IMAGES, tuple("abcde"), ("cat", "dog", "cat", "cow", "dog"))


@pytest.mark.parametrize(
    ("expressions", "rows"),
    [
        ((), []),
        (("id:d",), [3]),
        (("id:e,b",), [1, 4]),
        (("label=cat",), [0, 2]),
        (("label=dog", "id:b,a"), [0, 1, 4]),
    ],
)
def test_any_expression_names_some(expressions: tuple[str, ...], rows: list[int]) -> None:
    assert selected(PETS, expressions).tolist() == rows


def test_a_file_names_ids_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes("\ufeffc\r\n\r\n a \r\n".encode())
    assert selected(PETS, (f"@{path}",)).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("cat", "'cat' names no samples: write id:ONE,TWO"),
        ("id:z", "no sample has the id 'z': ids are such as 'a'"),
        ("id:", "no sample has the id ''"),
        ("label=cut", "unknown label 'cut': did you mean 'cat'"),
        ("artist=anna", r"no column 'artist' \(known: label\)"),
        ("@nowhere.txt", "nowhere.txt cannot be read"),
    ],
)
def test_what_names_nothing_is_refused(expression: str, message: str) -> None:
    with pytest.raises(RetracError, match=message):
        selected(PETS, (expression,))


def test_samples_without_labels_have_no_columns() -> None:
    with pytest.raises(RetracError, match=r"no column 'label' \(known: none\)"):
        selected(ImageDataset("bare", IMAGES, tuple("abcde")), ("label=cat",))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("\n")
    with pytest.raises(RetracError, match="names no samples"):
        selected(PETS, (f"@{tmp_path / 'ids.txt'}",))
