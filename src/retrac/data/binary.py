"""The official binary distributions: CIFAR-10's layout (ArtBench shares it) and MNIST's idx."""

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrac.data.images import Pixels
from retrac.data.samples import Samples, from_arrays
from retrac.errors import RetracError

CIFAR_RECORD = 1 + 3 * 32 * 32  # label, then the red, the green and the blue plane
IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")


def cifar(files: Sequence[Path], split: str, classes: Sequence[str]) -> Samples:
    """Open CIFAR-10's binary version (`data_batch_*.bin`, `test_batch.bin`).

    Class names are those of `batches.meta.txt`, if it is there, else `classes`.

    Raises:
        RetracError: an unknown split, or a file of which a part is missing.
    """
    prefix = {"train": "data_batch_", "test": "test_batch"}.get(split)
    batches = [path for path in files if prefix and path.name.startswith(prefix)]
    batches = [path for path in batches if path.suffix == ".bin"]
    if not batches:
        raise RetracError(f"no files of split {split!r} beside {files[0]} (splits: test, train)")
    contents = b"".join(_cifar_batch(path) for path in batches)
    records = np.frombuffer(contents, np.uint8).reshape(-1, CIFAR_RECORD)
    meta = next((path for path in files if path.name == "batches.meta.txt"), None)
    names = [line.strip() for line in meta.read_text().splitlines()] if meta else list(classes)
    return from_arrays(
        records[:, 1:].reshape(-1, 3, 32, 32),
        [f"{split}/{index}" for index in range(len(records))],
        [_name(names, label) for label in records[:, 0]],
    )


def _cifar_batch(path: Path) -> bytes:
    content = path.read_bytes()
    if not content or len(content) % CIFAR_RECORD:
        raise RetracError(
            f"{path} is damaged: {len(content)} bytes are not whole records of {CIFAR_RECORD}; "
            "fetch it again"
        )
    return content


def idx(files: Sequence[Path], split: str) -> Samples:
    """Open MNIST's idx files, gzipped or not.

    Raises:
        RetracError: an unknown split, a missing file, or a damaged one.
    """
    prefix = {"train": "train", "test": "t10k"}.get(split)
    parts = {
        match[2]: path
        for path in files
        if (match := IDX_NAME.fullmatch(path.name)) and match[1] == prefix
    }
    if set(parts) != {"images", "labels"}:
        raise RetracError(
            f"no idx files of images and labels of split {split!r} beside {files[0]} "
            "(splits: test, train)"
        )
    images, labels = _idx_array(parts["images"], 3), _idx_array(parts["labels"], 1)
    if len(images) != len(labels):
        raise RetracError(f"{parts['labels']} has {len(labels)} labels for {len(images)} images")
    ids = [f"{split}/{index}" for index in range(len(images))]
    return from_arrays(images[:, None], ids, [str(label) for label in labels])


def _idx_array(path: Path, dimensions: int) -> Pixels:
    """Read one idx file: two zero bytes, type, rank, big-endian sizes, then the data."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise RetracError(f"{path} is damaged ({error}): fetch it again") from error
    start = 4 + 4 * dimensions
    header = np.frombuffer(content[4:start], ">u4") if len(content) >= start else None
    if (
        header is None
        or content[:4] != bytes((0, 0, 8, dimensions))
        or math.prod(int(size) for size in header) != len(content) - start
    ):
        raise RetracError(f"{path} is damaged: its header and its size disagree; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape([int(n) for n in header])


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) and names[label] else str(label)
