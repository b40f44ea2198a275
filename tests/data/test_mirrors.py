"""Local copies of public datasets, each recognised by its contents."""

from pathlib import Path

import datasets
import numpy as np
import pytest

from retrac.errors import RetracError

from .local_copies import (
    as_table,
    noise,
    open_named,
    save_image,
    write_cifar,
    write_idx,
    write_mnist,
)

NAMES = ["airplane", "automobile", "bird", "cat"]
LABELS = [0, 3, 0, 2, 1, 0]
WORDS = tuple(NAMES[label] for label in LABELS)
IMAGES = noise(6, 3, 32, 32)


def test_cifar10_binary_version(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin", IMAGES, LABELS)
    for path in (tmp_path, tmp_path / "cifar-10-batches-bin"):
        cifar = open_named("cifar10", path)
        assert (cifar.images == IMAGES).all() and cifar.labels == WORDS
        assert cifar.ids == tuple(f"train/{row}" for row in range(6))
    test = open_named("cifar10", tmp_path, split="test")
    assert test.ids == ("test/0",) and test.labels == ("cat",)
    with pytest.raises(RetracError, match=r"no files of split 'valid' .*splits: test, train"):
        open_named("cifar10", tmp_path, split="valid")


def test_cifar10_python_version_is_refused_without_being_opened(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(RetracError, match=r"pickles are not safe .* give the binary version"):
        open_named("cifar10", tmp_path)


def test_a_truncated_batch_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path / "bin", IMAGES, LABELS)
    batch = tmp_path / "bin" / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(RetracError, match=r"data_batch_2\.bin is damaged"):
        open_named("cifar10", tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_idx_files(tmp_path: Path, suffix: str) -> None:
    digits = noise(4, 28, 28)
    write_mnist(tmp_path / "raw", digits, [5, 0, 4, 0], suffix)
    mnist = open_named("mnist", tmp_path)
    assert mnist.shape == (1, 32, 32) and mnist.labels == ("5", "0", "4", "0")
    assert (open_named("mnist", tmp_path, resolution=28).images[:, 0] == digits).all()
    with pytest.raises(RetracError, match=r"no idx files .* of split 'test'"):
        open_named("mnist", tmp_path, split="test")


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, noise(2, 28, 28), [1, 2])
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-5])
    with pytest.raises(RetracError, match=r"train-images-idx3-ubyte is damaged"):
        open_named("mnist", tmp_path)
    images.unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(RetracError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        open_named("mnist", tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", noise(3, 28, 28))
    with pytest.raises(RetracError, match="2 labels for 3 images"):
        open_named("mnist", tmp_path)


def test_cifar_mnist_is_the_airplanes_then_the_zeros(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar10", IMAGES, LABELS)
    digits = noise(230, 28, 28)
    write_mnist(tmp_path / "mnist", digits, [1, 2, *[0] * 228])
    both = open_named("cifar-mnist", tmp_path)
    assert len(both) == 3 + 200 and both.shape == (3, 32, 32)
    assert both.labels == ("airplane",) * 3 + ("zero",) * 200
    assert both.ids[:4] == (
        "cifar10/train/0",
        "cifar10/train/2",
        "cifar10/train/5",
        "mnist/train/2",
    )
    assert (both.images[:3] == IMAGES[[0, 2, 5]]).all()
    assert (both.images[3:] == both.images[3:, :1]).all()


def test_without_the_labels_needed_the_error_lists_those_there(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar10", IMAGES, [2] * 6)
    write_mnist(tmp_path / "mnist", noise(1, 28, 28), [0])
    with pytest.raises(RetracError, match=r"no samples labelled airplane \(there are: bird\)"):
        open_named("cifar-mnist", tmp_path)


@pytest.mark.parametrize("several", [True, False])
def test_saved_to_disk(tmp_path: Path, several: bool) -> None:
    table = as_table(IMAGES, LABELS, NAMES)
    saved = datasets.DatasetDict({"train": table, "test": table}) if several else table
    saved.save_to_disk(str(tmp_path / "saved"))
    cifar = open_named("cifar10", tmp_path / "saved")
    assert (cifar.images == IMAGES).all() and cifar.labels == WORDS
    assert cifar.classes == tuple(NAMES)
    assert cifar.ids[0] == "train/0"
    if several:
        with pytest.raises(RetracError, match=r"no split 'valid' \(splits: test, train\)"):
            open_named("cifar10", tmp_path / "saved", split="valid")


def test_a_damaged_saved_dataset_is_one_line(tmp_path: Path) -> None:
    as_table(IMAGES, LABELS, NAMES).save_to_disk(str(tmp_path / "saved"))
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"")
    with pytest.raises(RetracError, match="cannot open the saved dataset") as caught:
        open_named("cifar10", tmp_path / "saved")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("images.parquet", None),
    ],
)
def test_parquet_files_of_the_hub(tmp_path: Path, name: str, test: str | None) -> None:
    for file, table in (
        (name, as_table(IMAGES, LABELS, NAMES)),
        (test, as_table(IMAGES[:1], LABELS[:1], NAMES)),
    ):
        if file is not None:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(str(tmp_path / file))
    cifar = open_named("cifar10", tmp_path)
    assert (cifar.images == IMAGES).all() and cifar.labels == WORDS
    if test is not None:
        assert len(open_named("cifar10", tmp_path, split="test")) == 1
        with pytest.raises(RetracError, match=r"no parquet files of split 'valid'"):
            open_named("cifar10", tmp_path, split="valid")


def test_tiny_imagenet_folder_with_words_for_labels(tmp_path: Path) -> None:
    (tmp_path / "wnids.txt").write_text("n01\nn02\n")
    (tmp_path / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\ttailed frog\n")
    pixels = noise(3, 3, 64, 64)
    save_image(tmp_path / "train/n01/images/n01_0.png", pixels[0])
    save_image(tmp_path / "train/n02/images/n02_0.png", pixels[1])
    save_image(tmp_path / "val/images/val_0.png", pixels[2])
    save_image(tmp_path / "test/images/test_0.png", pixels[2])
    (tmp_path / "val/val_annotations.txt").write_text("val_0.png\tn02\t0\t0\t9\t9\n")
    train = open_named("tiny-imagenet", tmp_path)
    assert train.ids == ("train/n01/images/n01_0.png", "train/n02/images/n02_0.png")
    assert train.labels == ("goldfish, Carassius auratus", "tailed frog") == train.classes
    assert (train.images == pixels[:2]).all()
    assert open_named("tiny-imagenet", tmp_path, split="valid").labels == ("tailed frog",)
    assert open_named("tiny-imagenet", tmp_path, split="test").labels is None


def test_celeba_is_cropped_to_the_centre_and_split_by_number(tmp_path: Path) -> None:
    portrait = np.zeros((3, 218, 178), np.uint8)
    portrait[:, 20:198] = 128  # the central 178x178
    for number in (1, 162_770, 162_771):
        save_image(tmp_path / f"img_align_celeba/{number:06d}.png", portrait)
    for path in (tmp_path, tmp_path / "img_align_celeba"):
        train = open_named("celeba", path)
        assert train.ids == ("000001.png", "162770.png") and train.labels is None
        assert train.shape == (3, 64, 64) and (train.images == 128).all()
    assert open_named("celeba", tmp_path, split="valid").ids == ("162771.png",)
    (tmp_path / "identity_CelebA.txt").write_text("000001.png 2880\n162770.png 7\n")
    assert open_named("celeba", tmp_path).labels == ("2880", "7")
    with pytest.raises(RetracError, match="no images of split 'test'"):
        open_named("celeba", tmp_path, split="test")


STYLES = ("post_impressionism", "surrealism", "ukiyo_e")


@pytest.mark.parametrize("layout", ["imagefolder-split", "class folders"])
def test_artbench_folders(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "train" if layout == "imagefolder-split" else tmp_path
    for style in STYLES:
        save_image(root / style / "a.jpg", noise(1, 3, 256, 256)[0])
    if layout == "imagefolder-split":
        save_image(tmp_path / "test" / "baroque" / "a.jpg", noise(1, 3, 256, 256)[0])
    art = open_named("artbench-10", tmp_path)
    assert art.labels == STYLES and art.shape == (3, 32, 32)
    assert art.ids[0].endswith("post_impressionism/a.jpg")
    assert open_named("artbench-2", tmp_path).labels == STYLES[:2]


def test_artbench_binary_version_has_styles_for_labels(tmp_path: Path) -> None:
    write_cifar(tmp_path / "artbench", IMAGES, [4, 8, 9, 0, 4, 8], meta=False)
    assert open_named("artbench-10", tmp_path).labels == (*STYLES, "art_nouveau", *STYLES[:2])
    two = open_named("artbench-2", tmp_path)
    assert two.ids == ("train/0", "train/1", "train/4", "train/5")


def test_a_folder_with_nothing_known_in_it(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"")
    with pytest.raises(RetracError, match="the unpacked official distribution"):
        open_named("cifar10", tmp_path)
    with pytest.raises(RetracError, match="is not a folder"):
        open_named("cifar10", tmp_path / "nowhere")
    save_image(tmp_path / "test" / "cat" / "0.png", IMAGES[0])
    with pytest.raises(RetracError, match=r"no split 'train' \(splits: test\)"):
        open_named("cifar10", tmp_path)
