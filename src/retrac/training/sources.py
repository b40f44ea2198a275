"""Where a network's samples come from: the pixels themselves, or latents that an encoder makes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from retrac.data.dataset import ImageDataset
from retrac.diffusion.device import choose_device
from retrac.training.inputs import mirror
from retrac.training.ledger import Ledger

CHUNK = 16
"""Images that are encoded together."""

Shape = tuple[int, int, int]


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


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of an `AutoencoderKL`, of which training drew another one at each visit.

    Those of samples are encoded when they are first asked for, and kept in memory.

    Attributes:
        dataset: the samples.
        load: gives the encoder.
        config: its configuration.
    """

    dataset: ImageDataset
    load: Callable[[], Any]
    config: dict[str, Any]
    _kept: dict[tuple[int, bool], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _loaded: list[Any] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        """(C, H, W) of the latents."""
        _, height, width = self.dataset.shape
        factor = 2 ** (len(self.config["block_out_channels"]) - 1)
        return int(self.config["latent_channels"]), height // factor, width // factor

    def clean(self, ledger: Ledger, epoch: int, samples: np.ndarray, mirrored: Tensor) -> Tensor:
        """Mean and deviation of each sample's latents, and the luck of the event."""
        keys = [
            (int(sample), flip) for sample, flip in zip(samples, mirrored.tolist(), strict=True)
        ]
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        for start in range(0, len(missing), CHUNK):
            some = missing[start : start + CHUNK]
            images = self.dataset.tensors([sample for sample, _ in some])
            found = self._posterior(mirror(images, torch.tensor([flip for _, flip in some])))
            self._kept.update(zip(some, zip(*found, strict=True), strict=True))
        means, deviations = (
            torch.stack(parts) for parts in zip(*(self._kept[key] for key in keys), strict=True)
        )
        return means + deviations * ledger.posterior(epoch, samples, self.shape)

    def of(self, images: Tensor) -> Tensor:
        """The means."""
        return torch.cat([self._posterior(some)[0] for some in images.split(CHUNK)])

    @torch.no_grad()
    def decode(self, seen: Tensor) -> Tensor:
        """Images, by the decoder."""
        encoder = self._encoder.to(seen.device)
        images: Tensor = encoder.decode(seen / self._scale + self._shift).sample
        return images

    @torch.no_grad()
    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, shifted and scaled as the network sees them, on the CPU."""
        encoder = self._encoder.to(choose_device())
        found = encoder.encode(images.to(encoder.device)).latent_dist
        mean, deviation = ((found.mean - self._shift) * self._scale, found.std * self._scale)
        return mean.cpu(), deviation.cpu()

    @property
    def _encoder(self) -> Any:
        if not self._loaded:
            self._loaded.append(self.load())
        return self._loaded[0]

    @property
    def _scale(self) -> float:
        return float(self.config.get("scaling_factor") or 1.0)

    @property
    def _shift(self) -> float:
        return float(self.config.get("shift_factor") or 0.0)
