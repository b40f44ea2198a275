"""Queries: images, and what a network sees of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from retrac.attribution.plan import Plan
from retrac.diffusion.schedule import process_of
from retrac.diffusion.shown import Rows, Seen
from retrac.training.run import Run


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


class Journey(NamedTuple):
    """The way of Q generated images, by the steps of the sampler.

    Attributes:
        timesteps: `[steps]`, what the network was told at each.
        clean: `[Q, steps, …]`, the samples that its predictions pointed to.
    """

    timesteps: Tensor
    clean: Tensor


@dataclass(frozen=True, eq=False)
class Queries:
    """Images to be explained.

    Attributes:
        name: short, fit for a folder name.
        images: uint8 `[Q, C, H, W]`.
        ids: Q names.
        labels: Q labels or prompts; empty where there is none.
        journey: the way on which they were generated; None where they are looked at as they are.
        masks: bool `[Q, H, W]`, the region that counts; None for all of it.
        guidance: with which they were generated.
    """

    name: str
    images: np.ndarray
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    journey: Journey | None = None
    masks: np.ndarray | None = None
    guidance: float = 1.0

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Queries":
        """Some of them."""
        which, journey = list(rows), self.journey
        return Queries(
            self.name,
            self.images[which],
            tuple(self.ids[row] for row in which),
            tuple(self.labels[row] for row in which),
            None if journey is None else journey._replace(clean=journey.clean[which]),
            None if self.masks is None else self.masks[which],
            self.guidance,
        )

    def asked(self, run: Run, plan: Plan) -> Asked:
        """As the network of a run sees them at the timesteps of a plan.

        On a journey, that is at each timestep what the nearest step of the sampler pointed to
        (Georgiev et al. 2023, section 3).
        """
        seen = run.seen(self.images, self.labels)
        if self.masks is not None:
            seen = seen._replace(counted=_share(torch.from_numpy(self.masks), seen.clean))
        path = None
        if (journey := self.journey) is not None:
            told = process_of(run.making.scheduler).told[plan.timesteps]
            path = journey.clean[:, (told[:, None] - journey.timesteps).abs().argmin(1)]
        return Asked(seen, pixels(self.images), path)

    @property
    def told(self) -> tuple[Any, ...]:
        """What tells them from other queries, as JSON values and arrays."""
        masks = () if self.masks is None else (self.masks,)
        return (self.images, list(self.ids), *masks)


def pixels(images: np.ndarray) -> Tensor:
    """Images uint8 `[Q, C, H, W]` in [-1, 1]."""
    return torch.from_numpy(images).float() / 127.5 - 1


def _share(masks: Tensor, clean: Tensor) -> Tensor:
    """How much each pixel or latent counts, `[Q, 1, H, W]` with a mean of 1."""
    shares = adaptive_avg_pool2d(masks[:, None].float(), (clean.shape[2], clean.shape[3]))
    return shares / shares.mean((1, 2, 3), keepdim=True)
