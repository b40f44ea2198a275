"""What a network is shown: samples as it sees them, and the noise and timestep of each pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Rows = slice | Sequence[int] | np.ndarray | Tensor


class Seen(NamedTuple):
    """B samples as a network sees them, before noise.

    Attributes:
        clean: `[B, …]`, pixels in [-1, 1] or latents.
        conditions: by name `[B, …]`, such as embedded text or a class.
        counted: how much the loss counts at each pixel, `[B, 1, H, W]` with a mean of 1; None where
            all count alike.
    """

    clean: Tensor
    conditions: Mapping[str, Tensor] = {}
    counted: Tensor | None = None

    @property
    def size(self) -> int:
        """B."""
        return len(self.clean)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Seen":
        """With everything changed in the same way."""
        return Seen(
            change(self.clean),
            {name: change(value) for name, value in self.conditions.items()},
            None if self.counted is None else change(self.counted),
        )

    def at(self, precision: torch.dtype) -> "Seen":
        """With all numbers but whole ones in a precision."""
        return self.each(
            lambda values: values.to(precision) if values.is_floating_point() else values
        )

    def rows(self, which: Rows) -> "Seen":
        """Some of them."""
        return self.each(lambda values: values[which])

    def repeated(self, times: int) -> "Seen":
        """Each of them so many times, one after the other."""
        return self.each(lambda values: values.repeat_interleave(times, 0))

    def on(self, device: torch.device) -> "Seen":
        """On a device, in the order in which it computes fastest."""
        moved = self.each(lambda values: values.to(device))
        return moved._replace(clean=fast_memory_format(moved.clean))


class Shown(NamedTuple):
    """B passes: what is seen, and how it is noised.

    Attributes:
        seen: the samples.
        timesteps: `[B]` int64 in [0, T).
        noise: `[B, …]` standard normal, of the shape of `seen.clean`.
    """

    seen: Seen
    timesteps: Tensor
    noise: Tensor

    @property
    def size(self) -> int:
        """B."""
        return len(self.timesteps)

    def rows(self, which: Rows) -> "Shown":
        """Some of them."""
        return Shown(self.seen.rows(which), self.timesteps[which], self.noise[which])

    def split(self, size: int) -> Iterator["Shown"]:
        """So many at a time."""
        for start in range(0, self.size, size):
            yield self.rows(slice(start, start + size))

    def on(self, device: torch.device) -> "Shown":
        """On a device, in the order in which it computes fastest."""
        noise = fast_memory_format(self.noise.to(device))
        return Shown(self.seen.on(device), self.timesteps.to(device), noise)


def together(parts: Sequence[Shown]) -> Shown:
    """Several, one after the other."""
    seen = [part.seen for part in parts]
    names = seen[0].conditions
    return Shown(
        Seen(
            torch.cat([each.clean for each in seen]),
            {name: torch.cat([each.conditions[name] for each in seen]) for name in names},
        ),
        torch.cat([part.timesteps for part in parts]),
        torch.cat([part.noise for part in parts]),
    )


def fast_memory_format(images: Tensor) -> Tensor:
    """The same images with channels last, where convolutions are about twice as fast."""
    if images.dim() != 4:
        return images.contiguous()
    return images.contiguous(memory_format=torch.channels_last)
