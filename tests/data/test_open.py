"""Any folder, any .npz, any hub dataset; and what happens when there is none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest

from retrac.data.images import to_pil
from retrac.data.named import NAMED
from retrac.errors import RetracError

from .local_copies import as_table, noise, open_named, save_image


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    pixels = noise(3, 3, 12, 12)
    for name, image in zip(("dog/b.png", "cat/deep/a.png", "dog/a.png"), pixels, strict=True):
        save_image(tmp_path / name, image)
    folder = open_named(str(tmp_path))
    assert folder.ids == ("cat/deep/a.png", "dog/a.png", "dog/b.png")
    assert folder.labels == ("cat", "dog", "dog")
    assert (folder.images == pixels[[1, 2, 0]]).all()


def test_a_flat_folder_has_no_labels_and_stays_grey_if_all_are(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", noise(1, 1, 9, 9)[0])
    grey = open_named(str(tmp_path))
    assert grey.labels is None and grey.shape == (1, 9, 9)
    save_image(tmp_path / "b.png", noise(1, 3, 9, 9)[0])
    assert open_named(str(tmp_path)).shape == (3, 9, 9)


def test_images_of_different_or_oblong_sizes_become_32_by_32(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", noise(1, 3, 9, 20)[0])
    assert open_named(str(tmp_path)).shape == (3, 32, 32)
    save_image(tmp_path / "b.png", noise(1, 3, 9, 9)[0])
    assert open_named(str(tmp_path)).shape == (3, 32, 32)
    assert open_named(str(tmp_path), resolution=10).shape == (3, 10, 10)


def test_a_corrupt_image_in_a_folder_is_named(
    tmp_path: Path, broken_png: Callable[[Path], None]
) -> None:
    folder = tmp_path / "photos"
    save_image(folder / "fine.png", noise(1, 1, 32, 32)[0])
    broken_png(folder / "half.png")
    with pytest.raises(RetracError, match=r"cannot read the image .*photos/half\.png"):
        open_named(str(folder))


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
def test_npz_layouts(tmp_path: Path, layout: str) -> None:
    pixels = noise(4, 1, 8, 8) if layout == "NHW" else noise(4, 3, 8, 8)
    stored = {"NHW": pixels[:, 0], "NHWC": pixels.transpose(0, 2, 3, 1), "NCHW": pixels}[layout]
    np.savez(tmp_path / "x.npz", images=stored)
    opened = open_named(str(tmp_path / "x.npz"))
    assert (opened.images == pixels).all() and opened.labels is None
    assert opened.ids == ("x/0", "x/1", "x/2", "x/3")


def test_npz_labels_and_ids(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=noise(2, 8, 8), labels=[7, 1], ids=["p", "q"])
    opened = open_named(str(tmp_path / "x.npz"))
    assert opened.labels == ("7", "1") and opened.ids == ("p", "q")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": noise(2, 8, 8)}, r"no array 'images' \(it has: pictures\)"),
        ({"images": noise(2, 8, 8).astype(float)}, "must be uint8"),
        ({"images": noise(2, 3, 8, 3)}, "can be read two ways"),
        ({"images": noise(2, 4, 8, 8)}, "neither 1 nor 3 channels"),
        ({"images": noise(2, 8, 8), "labels": [1, 2, 3]}, r"'labels' must have shape \[2\]"),
        ({"images": noise(2, 8, 8), "ids": ["a", "a"]}, "'a' occurs more than once"),
        ({"images": np.array([{}, {}], dtype=object)}, "save plain arrays"),
    ],
)
def test_npz_that_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(RetracError, match=message):
        open_named(str(tmp_path / "x.npz"))


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("nonsense")
    with pytest.raises(RetracError, match=r"cannot read .*x\.npz"):
        open_named(str(tmp_path / "x.npz"))
    (tmp_path / "x.txt").write_text("nonsense")
    with pytest.raises(RetracError, match="neither a folder of images nor"):
        open_named(str(tmp_path / "x.txt"))


def test_a_hub_dataset_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, asked = noise(3, 3, 8, 8), []

    def serve(*name: str | None, split: str) -> datasets.Dataset:
        asked.append((*name, split))
        return as_table(pixels, [1, 0, -1], ["no", "yes"])

    monkeypatch.setattr(datasets, "load_dataset", serve)
    opened = open_named("hf:org/name", split="test")
    assert (opened.images == pixels).all()
    assert opened.labels == ("yes", "no", "unlabelled")
    assert opened.ids == ("test/0", "test/1", "test/2")
    open_named("hf:org/name/some-config", limit=1)
    assert asked == [("org/name", None, "test"), ("org/name", "some-config", "train")]


def two_columns(path: Path) -> None:
    """A saved table with two image columns and no class column."""
    pictures = [to_pil(image) for image in noise(2, 3, 8, 8)]
    kinds = {"img": datasets.Image(), "mask": datasets.Image(), "mood": datasets.Value("string")}
    rows = {"img": pictures, "mask": pictures, "mood": ["calm", "wild"]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    table.save_to_disk(str(path))


def test_columns_are_chosen_by_name_where_there_are_several(tmp_path: Path) -> None:
    two_columns(tmp_path / "saved")
    with pytest.raises(RetracError, match=r"choose --image-column among .* img, mask"):
        open_named("hf:org/name", tmp_path / "saved")
    chosen = open_named("hf:org/name", tmp_path / "saved", image_column="mask")
    assert chosen.labels is None
    moods = open_named("hf:org/name", tmp_path / "saved", image_column="mask", label_column="mood")
    assert moods.labels == ("calm", "wild")
    with pytest.raises(RetracError, match=r"no column 'colour' \(columns: img, mask"):
        open_named("hf:org/name", tmp_path / "saved", image_column="colour")
    with pytest.raises(RetracError, match="choose --image-column"):
        open_named("hf:org/name", tmp_path / "saved", image_column="mood")


def test_a_corrupt_row_is_named(tmp_path: Path, broken_png: Callable[[Path], None]) -> None:
    broken_png(tmp_path / "half.png")
    broken = {"bytes": (tmp_path / "half.png").read_bytes(), "path": None}
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": [broken]}, features=features)
    table.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(RetracError, match=r"cannot read the image .*saved/train/0 "):
        open_named("hf:org/name", tmp_path / "saved", resolution=8)


@pytest.mark.parametrize("name", ["cifar10", "celeba", "hf:org/name"])
def test_without_network_one_line_tells_the_way_out(name: str) -> None:
    with pytest.raises(RetracError, match=r"cannot fetch .* --dataset-path") as caught:
        open_named(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown dataset 'digit': did you mean 'digits'"),
        ("no/such/folder", "no/such/folder does not exist"),
        ("missing.npz", r"missing\.npz does not exist"),
    ],
)
def test_unknown_names_and_paths(name: str, message: str) -> None:
    with pytest.raises(RetracError, match=message):
        open_named(name)


@pytest.mark.parametrize("option", ["resolution", "limit"])
def test_numbers_below_one_are_refused(option: str) -> None:
    with pytest.raises(RetracError, match=f"--{option} must be at least 1, not 0"):
        open_named("digits", **{option: 0})


def test_a_part_of_a_dataset_is_what_is_left_of_the_whole() -> None:
    whole, part = open_named("digits"), open_named("digits", skip=256, limit=3)
    assert part.ids == whole.ids[256:259]
    assert np.array_equal(part.images, whole.images[256:259])


@pytest.mark.parametrize(
    ("skip", "message"),
    [(-1, "--skip must be at least 0, not -1"), (1797, "--skip 1797 leaves nothing")],
)
def test_a_part_that_does_not_exist_is_refused(skip: int, message: str) -> None:
    with pytest.raises(RetracError, match=message):
        open_named("digits", skip=skip)


FORMS = {
    "epochs": int,
    "checkpoint_every": int,
    "batch_size": int,
    "learning_rate": float,
    "ema_decay": float,
    "optimizer": str,
    "loss": str,
    "prediction": str,
    "schedule": str,
    "timesteps": int,
    "channels": tuple,
    "max_grad_norm": float,
}


@pytest.mark.parametrize("name", NAMED)
def test_every_record_is_complete(name: str) -> None:
    record = NAMED[name]
    assert record.name == name and record.description and record.size > 0
    assert all(type(value) is FORMS[option] for option, value in record.preset.items())
    assert record.preset["epochs"] % record.preset["checkpoint_every"] == 0  # type: ignore[operator]


def test_published_settings() -> None:
    published = dict(NAMED["cifar-mnist"].preset)
    assert published == {
        "epochs": 500,
        "checkpoint_every": 50,
        "batch_size": 32,
        "learning_rate": 1e-4,
        "optimizer": "adam",
        "loss": "l1",
        "prediction": "epsilon",
        "schedule": "clipped-cosine",
        "timesteps": 1000,
        "channels": (128, 256, 512, 1024),
    }
    assert NAMED["tiny-imagenet"].preset["channels"] == (16, 32, 64, 128)


def test_the_options_and_the_list_of_datasets_are_quick_to_import() -> None:
    slow = "{'torch', 'datasets', 'sklearn'}"
    code = f"import sys, retrac.data.named; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
