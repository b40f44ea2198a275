"""Images of a run, as files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrac.errors import RetracError
from retrac.training.generation import generate_images
from retrac.training.run import Run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_single_images_and_a_sheet_beside_their_folder(tiny_run: Run, tmp_path: Path) -> None:
    sheet = generate_images(tiny_run, tmp_path / "out/five", count=5, seed=1, steps=3)
    names = [f"{index:04d}.png" for index in range(5)]
    assert sorted(path.name for path in (tmp_path / "out/five").iterdir()) == names
    assert sheet == tmp_path / "out/five-sheet.png"
    assert pixels(tmp_path / "out/five/0000.png").shape == (8, 8)
    generate_images(tiny_run, tmp_path / "two", count=2, seed=1, steps=3)
    for name in names[:2]:
        assert np.array_equal(pixels(tmp_path / "out/five" / name), pixels(tmp_path / "two" / name))


def test_any_checkpoint_can_generate(tiny_run: Run, tmp_path: Path) -> None:
    for epoch in (2, 6, None):
        generate_images(tiny_run, tmp_path / str(epoch), 1, seed=0, steps=3, epoch=epoch)
    early, late, last = (pixels(tmp_path / name / "0000.png") for name in ("2", "6", "None"))
    assert np.array_equal(late, last) and not np.array_equal(early, late)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"count": 0}, "--count must be at least 1"),
        ({"steps": 0}, "--steps 1 to 50"),
        ({"steps": 51}, "--steps 1 to 50"),
        ({"eta": float("nan")}, "--eta 0 to 1"),
        ({"eta": 1.5}, "--eta 0 to 1"),
        ({"seed": -1}, "seed of generated images must be at least 0, not -1"),
        ({"epoch": 3}, "no checkpoint after epoch 3: there are 2, 4, 6"),
    ],
)
def test_what_cannot_be_made_is_refused(
    changes: dict[str, Any], told: str, tiny_run: Run, tmp_path: Path
) -> None:
    options = {"count": 1, "seed": 0, "steps": 3, **changes}
    with pytest.raises(RetracError, match=told):
        generate_images(tiny_run, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be_is_left_alone(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(RetracError, match="a file stands where a folder is needed"):
        generate_images(tiny_run, tmp_path / "out", 1, seed=0, steps=3)
    assert (tmp_path / "out").read_text() == "precious"
