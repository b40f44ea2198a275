"""The record of every training event, as a function instead of a file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ORDER = np.iinfo(np.uint64).max
"""Takes a sample index's place in the counter when an epoch's order is drawn."""
POSTERIOR = 1
"""Kind of stream, beside an event's own."""


class Events(NamedTuple):
    """What was random in one visit to each of B samples."""

    timesteps: Tensor
    """`[B]` int64 in [0, T)."""
    noise: Tensor
    """`[B, *shape]` float32, standard normal."""
    flips: Tensor
    """`[B]` bool: whether the image was mirrored, in runs that do so."""


@dataclass(frozen=True)
class Ledger:
    """Events of a training run: a pure function of seed, epoch and sample index.

    Each event has its own stream of a counter-based generator (NumPy's Philox), so it does not
    depend on batch size, order of visits, device, number of processes or a resume in the middle.
    It works in any training loop: ask it for `events(epoch, indices, shape)` and use them.

    Args:
        seed: of the run, 0 or greater.
        size: number of samples in the training set.
        timesteps: T, the number of steps of the forward process.
    """

    seed: int
    size: int
    timesteps: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"the seed must be in [0, 2^64), not {self.seed}")
        if self.size < 1 or self.timesteps < 1:
            raise ValueError("a ledger needs at least one sample and one timestep")

    def events(
        self, epoch: int, indices: Sequence[int] | np.ndarray | Tensor, shape: Sequence[int]
    ) -> Events:
        """The events of some samples in one epoch.

        Args:
            epoch: from 0.
            indices: `[B]` samples, each in [0, size).
            shape: of one sample's noise, such as (C, H, W).

        Raises:
            IndexError: a sample that the training set does not have, or an epoch below 0.
        """
        chosen = [int(index) for index in indices]
        timesteps = np.empty(len(chosen), np.int64)
        flips = np.empty(len(chosen), bool)
        noise = np.empty((len(chosen), *shape), np.float32)
        for row, index in enumerate(chosen):
            self._refuse_unknown(index)
            stream = self._stream(epoch, index)
            # Always four, so that what is added later moves nothing that is drawn today.
            moment, flip, _, _ = stream.random(4)
            timesteps[row] = int(moment * self.timesteps)
            flips[row] = flip < 0.5
            stream.standard_normal(out=noise[row], dtype=np.float32)
        return Events(*map(torch.from_numpy, (timesteps, noise, flips)))

    def posterior(
        self, epoch: int, indices: Sequence[int] | np.ndarray | Tensor, shape: Sequence[int]
    ) -> Tensor:
        """The luck of each sample's latents in one epoch, standard normal `[B, *shape]`: what is
        seen is the encoder's mean plus its deviation times this.

        Raises:
            IndexError: as `events`.
        """
        found = np.empty((len(indices), *shape), np.float32)
        for row, index in enumerate(indices):
            self._refuse_unknown(int(index))
            stream = self._stream(epoch, int(index), POSTERIOR)
            stream.standard_normal(out=found[row], dtype=np.float32)
        return torch.from_numpy(found)

    def dropped(
        self, epoch: int, indices: Sequence[int] | np.ndarray | Tensor, probability: float
    ) -> Tensor:
        """Whether the condition of each sample was dropped in one epoch, bool `[B]`.

        Raises:
            IndexError: as `events`.
        """
        found = []
        for index in indices:
            self._refuse_unknown(int(index))
            _, _, drop, _ = self._stream(epoch, int(index)).random(4)
            found.append(bool(drop < probability))
        return torch.tensor(found)

    def order(self, epoch: int) -> np.ndarray:
        """The order in which an epoch visits the samples, int64 `[size]`."""
        return self._stream(epoch, ORDER).permutation(self.size)

    def batches(self, epoch: int, batch_size: int) -> list[np.ndarray]:
        """The epoch's batches of sample indices; the last one holds what is left."""
        order = self.order(epoch)
        return [order[start : start + batch_size] for start in range(0, self.size, batch_size)]

    def digest(self) -> str:
        """A fingerprint of some events, to notice a generator that has changed since training."""
        digest = hashlib.sha256()
        for epoch in (0, 1, 999):
            events = self.events(epoch, [0, self.size // 2, self.size - 1], (2, 5))
            for tensor in events:
                digest.update(tensor.numpy().tobytes())
            digest.update(self.order(epoch)[:100].astype("<i8").tobytes())
        return digest.hexdigest()

    def _refuse_unknown(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise IndexError(f"sample {index} is not in a training set of {self.size}")

    def _stream(self, epoch: int, index: int, kind: int = 0) -> np.random.Generator:
        if epoch < 0:
            raise IndexError(f"epochs are counted from 0: there is none numbered {epoch}")
        key = np.array([self.seed, 0x5265547261634C67], np.uint64)
        # Philox counts up in the first word, which no event can exhaust.
        counter = np.array([0, kind, epoch, index], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))
