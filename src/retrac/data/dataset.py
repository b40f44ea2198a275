"""The one form in which every other room meets samples: uint8 images with stable ids."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from retrac.errors import RetracError


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """Samples held in memory; read-only.

    Attributes:
        name: What the user called the dataset.
        images: uint8 `[N, C, H, W]`, C is 1 (greyscale) or 3 (RGB).
        ids: One stable, unique id per sample.
        labels: One human-readable label per sample, or None.
        classes: All labels in the order in which the source numbers them, where it does.

    Raises:
        RetracError: no samples, wrong shape or type, ids that repeat, or lengths that differ.
    """

    name: str
    images: NDArray[np.uint8]
    ids: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        images, count = self.images, len(self.images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise RetracError(
                f"dataset {self.name!r}: images must be uint8 [N, C, H, W] with C = 1 or 3, "
                f"not {images.dtype} {list(images.shape)}"
            )
        if count == 0:
            raise RetracError(f"dataset {self.name!r} holds no samples")
        for what, values in (("ids", self.ids), ("labels", self.labels)):
            if values is not None and len(values) != count:
                raise RetracError(
                    f"dataset {self.name!r} has {len(values)} {what} for {count} images"
                )
        if len(set(self.ids)) != count:
            [(twice, _)] = Counter(self.ids).most_common(1)
            raise RetracError(f"dataset {self.name!r}: the id {twice!r} occurs more than once")
        # A fingerprint that is cached must not be able to go stale.
        frozen = np.ascontiguousarray(images).view()
        frozen.flags.writeable = False
        object.__setattr__(self, "images", frozen)

    def __repr__(self) -> str:
        return f"ImageDataset({self.name!r}, {len(self)} samples of {self.shape})"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every sample."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def tensors(self, indices: Sequence[int] | NDArray[np.integer] | torch.Tensor) -> torch.Tensor:
        """Return the samples at `indices` as float32 `[B, C, H, W]` in [-1, 1]."""
        chosen = self.images[np.asarray(indices, dtype=np.int64)]
        return torch.from_numpy(chosen).to(torch.float32).div_(127.5).sub_(1.0)

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> "ImageDataset":
        """The samples at `indices` as a dataset of their own, in that order."""
        chosen = [int(index) for index in indices]
        return ImageDataset(
            self.name,
            self.images[chosen],
            tuple(self.ids[index] for index in chosen),
            self.labels and tuple(self.labels[index] for index in chosen),
            self.classes,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over resolution, order, ids and pixels; labels and name do not count."""
        digest = hashlib.sha256(json.dumps([self.images.shape, self.ids]).encode())
        digest.update(self.images.reshape(-1).data)
        return digest.hexdigest()
