"""A plan: the draws (timestep, noise) at which a query's gradient is computed."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrac.influence.config import PlanConfig


@dataclass(frozen=True, eq=False)
class Plan:
    """T' timesteps, and m noises at each, for every query its own.

    Attributes:
        timesteps: `[T']` int64, rising.
        noises: m.
        seed: of the noises.
    """

    timesteps: Tensor
    noises: int
    seed: int

    @staticmethod
    def of(config: PlanConfig, steps: int) -> "Plan":
        """Spread timesteps evenly over [1, T-1], as the published code does."""
        spread = np.linspace(min(1, steps - 1), steps - 1, config.plan_timesteps)
        timesteps = torch.from_numpy(np.unique(spread.astype(np.int64)))
        return Plan(timesteps, config.plan_noises, config.plan_seed)

    def draw(self, image: Tensor) -> Tensor:
        """The noises of one query, `[T', m, C, H, W]`.

        They depend on the seed and the query's pixels, not on its place among other queries.
        """
        pixels = hashlib.sha256(image.numpy().astype("<f4").tobytes()).digest()
        entropy = [self.seed, int.from_bytes(pixels[:16], "little")]
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        size = (len(self.timesteps), self.noises, *image.shape)
        return torch.from_numpy(stream.standard_normal(size, dtype=np.float32))
