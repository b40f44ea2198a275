"""Queries as a network sees them, and what their noises follow from."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retrac.diffusion.shown import Rows, Seen
from retrac.influence.plan import Plan


class Asked(NamedTuple):
    """Q queries at the T' timesteps of a plan.

    Attributes:
        seen: as the network sees them.
        pixels: `[Q, C, H, W]` in [-1, 1], which decide their noises: what an encoder makes of them
            differs in the last digits from machine to machine.
        path: `[Q, T', …]`, what is seen of them at each timestep; None where it is the same.
    """

    seen: Seen
    pixels: Tensor
    path: Tensor | None = None

    @property
    def size(self) -> int:
        """Q."""
        return self.seen.size

    def rows(self, which: Rows) -> "Asked":
        """Some of them."""
        path = None if self.path is None else self.path[which]
        return Asked(self.seen.rows(which), self.pixels[which], path)

    def at(self, timesteps: slice, count: int) -> Seen:
        """At some of the plan's timesteps, of which there are `count`: query by query."""
        repeated = self.seen.repeated(count)
        if self.path is None:
            return repeated
        return repeated._replace(clean=self.path[:, timesteps].flatten(0, 1))

    def noises(self, plan: Plan) -> Tensor:
        """`[Q, T', m, …]`."""
        shape = self.seen.clean.shape[1:]
        return torch.stack([plan.draw(image, shape) for image in self.pixels])


def pixels(images: np.ndarray) -> Tensor:
    """Images uint8 `[Q, C, H, W]` in [-1, 1]."""
    return torch.from_numpy(images).float() / 127.5 - 1
