"""Small local copies of public datasets, written in their real formats."""

import gzip
from pathlib import Path

import datasets
import numpy as np

from retrac.data.config import DatasetConfig
from retrac.data.dataset import ImageDataset
from retrac.data.images import to_pil
from retrac.data.open import open_dataset


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random uint8 images `[count, *shape]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def open_named(name: str, path: Path | None = None, **options: object) -> ImageDataset:
    return open_dataset(DatasetConfig(name, dataset_path=path, **options))  # type: ignore[arg-type]


def save_image(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 `[C, H, W]`, making the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(pixels).save(path)


def write_cifar(folder: Path, images: np.ndarray, labels: list[int], meta: bool = True) -> None:
    """CIFAR-10's binary version, spread over five batches."""
    folder.mkdir(parents=True)
    for batch, rows in enumerate(np.array_split(np.arange(len(images)), 5), start=1):
        records = [bytes([labels[row]]) + images[row].tobytes() for row in rows]
        (folder / f"data_batch_{batch}.bin").write_bytes(b"".join(records))
    (folder / "test_batch.bin").write_bytes(bytes([3]) + images[0].tobytes())
    if meta:
        (folder / "batches.meta.txt").write_text("airplane\nautomobile\nbird\ncat\n\n")


def write_idx(path: Path, array: np.ndarray) -> None:
    """One of MNIST's files, gzipped if so named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, images: np.ndarray, labels: list[int], suffix: str = "") -> None:
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", np.array(labels, np.uint8))


def as_table(images: np.ndarray, labels: list[int], names: list[str]) -> datasets.Dataset:
    """What the hub serves: an image column and a class column."""
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"img": [to_pil(image) for image in images], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features)
