"""Where a network's samples come from: the pixels themselves, or latents that an encoder makes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from retrac.data.dataset import ImageDataset
from retrac.diffusion.device import choose_device
from retrac.diffusion.pipelines import factor_of
from retrac.errors import RetracError
from retrac.training.inputs import mirror
from retrac.training.kept import Kept
from retrac.training.ledger import Ledger

CHUNK = 16
"""Images that are encoded together, at the most."""
ENCODED, DECODED = 2**20, 2**18
"""Pixels that are encoded or decoded together, unless one image has more; decoding takes more
memory."""

Shape = tuple[int, int, int]
Encode = Callable[[Tensor], Tensor]


class Source(Protocol):
    """Samples and queries as a network sees them, before noise."""

    @property
    def shape(self) -> Shape:
        """Of one."""
        ...

    def clean(self, ledger: Ledger, epoch: int, samples: np.ndarray, mirrored: Tensor) -> Tensor:
        """What an event of each of some samples shows, `[B, …]`."""
        ...

    def of(self, images: Tensor) -> Tensor:
        """Of any images `[B, C, H, W]` in [-1, 1], without luck."""
        ...

    def decode(self, seen: Tensor) -> Tensor:
        """The way back, to images in [-1, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels themselves."""

    dataset: ImageDataset

    @property
    def shape(self) -> Shape:
        """(C, H, W) of the images."""
        return self.dataset.shape

    def clean(self, ledger: Ledger, epoch: int, samples: np.ndarray, mirrored: Tensor) -> Tensor:
        """The images, mirrored where training did."""
        return mirror(self.dataset.tensors(samples), mirrored)

    def of(self, images: Tensor) -> Tensor:
        """The same."""
        return images

    def decode(self, seen: Tensor) -> Tensor:
        """The same."""
        return seen


class Encoded:
    """What a function of one's own makes of images.

    Args:
        dataset: the samples.
        encode: of images `[B, C, H, W]` in [-1, 1].

    Raises:
        RetracError: it makes something else than `[B, C, H, W]`.
    """

    def __init__(self, dataset: ImageDataset, encode: Encode) -> None:
        self.dataset = dataset
        self._encode = encode
        self._kept: Kept[tuple[int, bool]] = Kept(self._encoded, CHUNK)
        [(first,)] = self._encoded([(0, False)])
        if first.dim() != 3:
            raise RetracError(
                f"`encode` must give [B, C, H, W] of [B, C, H, W], not {[1, *first.shape]} of "
                f"{[1, *dataset.shape]}"
            )
        channels, height, width = first.shape
        self.shape: Shape = (channels, height, width)

    def clean(self, ledger: Ledger, epoch: int, samples: np.ndarray, mirrored: Tensor) -> Tensor:
        """What it makes of the samples, mirrored where training did."""
        keys = zip(map(int, samples), mirrored.tolist(), strict=True)
        return torch.stack([row for (row,) in self._kept[list(keys)]])

    @torch.no_grad()
    def of(self, images: Tensor) -> Tensor:
        """What it makes of images."""
        return torch.cat([self._encode(some).cpu() for some in images.split(CHUNK)])

    def decode(self, seen: Tensor) -> Tensor:
        """Not known.

        Raises:
            RetracError: always.
        """
        raise RetracError("how what a function of your own encodes is decoded is not known here")

    def _encoded(self, keys: list[tuple[int, bool]]) -> list[tuple[Tensor, ...]]:
        return [(row,) for row in self.of(_mirrored(self.dataset, keys))]


class Latents:
    """Latents of an `AutoencoderKL`, of which training drew another one at each visit.

    Args:
        dataset: the samples.
        load: gives the encoder.
        config: its configuration, whole.

    Attributes:
        device: where to encode.
    """

    def __init__(
        self, dataset: ImageDataset, load: Callable[[], Any], config: dict[str, Any]
    ) -> None:
        self.dataset = dataset
        self._load = load
        self._config = config
        self._scale = float(config["scaling_factor"])
        self._shift = float(config["shift_factor"] or 0.0)
        self.device = choose_device()
        self._kept: Kept[tuple[int, bool]] = Kept(self._encoded, self._together(ENCODED))

    @property
    def shape(self) -> Shape:
        """(C, H, W) of the latents."""
        _, height, width = self.dataset.shape
        factor = factor_of(self._config)
        return int(self._config["latent_channels"]), height // factor, width // factor

    def clean(self, ledger: Ledger, epoch: int, samples: np.ndarray, mirrored: Tensor) -> Tensor:
        """Mean and deviation of each sample's latents, and the luck of the event."""
        keys = zip(map(int, samples), mirrored.tolist(), strict=True)
        means, deviations = map(torch.stack, zip(*self._kept[list(keys)], strict=True))
        return means + deviations * ledger.posterior(epoch, samples, self.shape)

    def of(self, images: Tensor) -> Tensor:
        """The means."""
        parts = images.split(self._together(ENCODED))
        return torch.cat([self._posterior(some)[0] for some in parts])

    def _together(self, pixels: int) -> int:
        _, height, width = self.dataset.shape
        return max(1, min(CHUNK, pixels // (height * width)))

    @torch.no_grad()
    def decode(self, seen: Tensor) -> Tensor:
        """Images, by the decoder."""
        encoder = self._encoder.to(seen.device)
        parts = (seen / self._scale + self._shift).split(self._together(DECODED))
        return torch.cat([encoder.decode(some).sample for some in parts])

    def _encoded(self, keys: list[tuple[int, bool]]) -> list[tuple[Tensor, ...]]:
        return list(zip(*self._posterior(_mirrored(self.dataset, keys)), strict=True))

    @torch.no_grad()
    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, shifted and scaled as the network sees them, on the CPU."""
        encoder = self._encoder.to(self.device)
        found = encoder.encode(images.to(encoder.device)).latent_dist
        mean, deviation = ((found.mean - self._shift) * self._scale, found.std * self._scale)
        return mean.cpu(), deviation.cpu()

    @cached_property
    def _encoder(self) -> Any:
        return self._load()


def _mirrored(dataset: ImageDataset, keys: list[tuple[int, bool]]) -> Tensor:
    """Samples, mirrored where it is said."""
    images = dataset.tensors([sample for sample, _ in keys])
    return mirror(images, torch.tensor([flip for _, flip in keys]))
