"""Datasets in an `.npz` file."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrac.data.dataset import ImageDataset
from retrac.data.images import Pixels
from retrac.data.samples import Samples, from_arrays
from retrac.errors import RetracError
from retrac.files import write_whole


def npz(path: Path) -> Samples:
    """Open `images` (uint8), and `labels` and `ids` where they are there.

    Images are `[N, H, W]` (grey), `[N, H, W, C]` or `[N, C, H, W]` with C = 1 or 3.

    Raises:
        RetracError: not an .npz, no `images`, another type, or a layout that can be read two ways.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise RetracError(
            f"cannot read {path} as .npz ({error}): save plain arrays with numpy.savez"
        ) from error
    if "images" not in arrays:
        raise RetracError(
            f"{path} has no array 'images' (it has: {', '.join(sorted(arrays)) or 'nothing'})"
        )
    images = _channels_first(arrays["images"], path)
    ids = _strings(arrays, "ids", len(images), path)
    labels = _strings(arrays, "labels", len(images), path)
    numbered = labels and arrays["labels"].dtype.kind in "iu"
    return from_arrays(
        images,
        ids or [f"{path.stem}/{index}" for index in range(len(images))],
        labels,
        [str(number) for number in np.unique(arrays["labels"])] if numbered else None,
    )


def write_npz(dataset: ImageDataset, path: Path) -> None:
    """Write a file that `npz` reads, with ids and labels; whole or not at all.

    Raises:
        RetracError: no space left, or no permission.
    """
    # Grey images without the axis of channels, which could be read two ways in tiny ones.
    arrays = {"images": dataset.images[:, 0] if dataset.shape[0] == 1 else dataset.images}
    arrays["ids"] = np.array(dataset.ids)
    if dataset.labels is not None:
        arrays["labels"] = np.array(dataset.labels)
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _channels_first(images: NDArray[Any], path: Path) -> Pixels:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise RetracError(
            f"{path}: 'images' must be uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], "
            f"not {images.dtype} {list(images.shape)}"
        )
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first == last:
        what = "can be read two ways" if first else "has neither 1 nor 3 channels"
        raise RetracError(
            f"{path}: 'images' {list(images.shape)} {what}: "
            "save it as [N, H, W] or with 1 or 3 channels, in images larger than 3 pixels"
        )
    return images if first else images.transpose(0, 3, 1, 2)


def _strings(
    arrays: dict[str, NDArray[Any]], name: str, count: int, path: Path
) -> list[str] | None:
    if name not in arrays:
        return None
    if arrays[name].shape != (count,):
        raise RetracError(
            f"{path}: '{name}' must have shape [{count}], one for each image, "
            f"not {list(arrays[name].shape)}"
        )
    return [str(value) for value in arrays[name]]
