"""A plan: the draws (timestep, noise) at which a query's gradient is computed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from retrac.attribution.config import PlanConfig


@dataclass(frozen=True, eq=False)
class Plan:
    """T' timesteps, and m noises at each, for every query its own.

    Attributes:
        timesteps: `[T']` int64, rising.
        noises: m.
        seed: of the noises.
        pairs: whether every second noise is the one before it with its sign turned. Most of what
            a single noise adds to a gradient turns with it, and so cancels.
        epoch: of the checkpoint, which has noises of its own: what is left of their luck averages
            out over checkpoints, and shows there.
    """

    timesteps: Tensor
    noises: int
    seed: int
    pairs: bool = False
    epoch: int = 0

    @staticmethod
    def of(config: PlanConfig, steps: int) -> "Plan":
        """Put timesteps in the middles of T' equal parts of [0, T).

        The published plan has them from one end of [1, T-1] to the other, where norms are extreme:
        few of them would give the ends too much weight.
        """
        count = config.timesteps
        if config.published:
            spread = np.linspace(min(1, steps - 1), steps - 1, count).astype(np.int64)
        else:
            spread = (2 * np.arange(count, dtype=np.int64) + 1) * steps // (2 * count)
        timesteps = torch.from_numpy(np.unique(spread))
        return Plan(timesteps, config.noises, config.plan_seed, pairs=not config.published)

    def at(self, epoch: int) -> "Plan":
        """The same plan at the checkpoint after so many epochs."""
        return replace(self, epoch=epoch)

    def draw(self, image: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """The noises of one query, `[T', m, *shape]`.

        They depend on the seed, the checkpoint and the query's pixels, not on its place among other
        queries.

        Args:
            image: its pixels.
            shape: as which the network sees it; as it is by default.
        """
        pixels = hashlib.sha256(image.numpy().astype("<f4").tobytes()).digest()
        entropy = [self.seed, self.epoch, int.from_bytes(pixels[:16], "little")]
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        drawn = (self.noises + 1) // 2 if self.pairs else self.noises
        size = (len(self.timesteps), drawn, *(shape or image.shape))
        noise = torch.from_numpy(stream.standard_normal(size, dtype=np.float32))
        if not self.pairs:
            return noise
        return torch.stack((noise, -noise), 2).flatten(1, 2)[:, : self.noises]
