"""What every row is given (the same in every process) and what it makes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.cost.networks import Network
from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.loss import Objective
from retrac.diffusion.shown import Seen, fast_memory_format
from retrac.gradients.weights import WEIGHTS


class Draws(NamedTuple):
    """Images, each at one timestep and noise."""

    images: Tensor
    timesteps: Tensor
    noise: Tensor

    @staticmethod
    def random(count: int, shape: tuple[int, ...], steps: int, device: str) -> "Draws":
        """Draw everything at random: what the numbers are does not matter to the cost."""
        images, noise = torch.rand(count, *shape) * 2 - 1, torch.randn(count, *shape)
        timesteps = torch.randint(steps, (count,))
        return Draws(
            fast_memory_format(images.to(device)),
            timesteps.to(device),
            fast_memory_format(noise.to(device)),
        )

    def first(self, count: int) -> "Draws":
        """No more than the first few."""
        return Draws(*(part[:count] for part in self))

    def split(self, size: int) -> Iterator["Draws"]:
        """All of them, in order, in parts."""
        return map(Draws._make, zip(*(part.split(size) for part in self), strict=True))


class Losses(nn.Module):
    """The per-sample loss as a module: peers know inputs and outputs, but nothing of noise."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, images: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """The losses `[B]`."""
        return self.objective.losses(self.model, Seen(images), timesteps, noise)


@dataclass(frozen=True, eq=False)
class Workload:
    """A network at work.

    Attributes:
        network: its description.
        losses: the network with its loss.
        samples: one batch, each sample at one event.
        queries: each at one draw.
    """

    network: Network
    losses: Losses
    samples: Draws
    queries: Draws

    @staticmethod
    def of(network: Network, device: str) -> "Workload":
        """Build a network and inputs for it."""
        torch.manual_seed(0)
        model = network.build()
        with torch.no_grad():  # where a fresh network is zero, it passes no gradients on
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        config = ObjectiveConfig()
        model = model.to(device=device, memory_format=torch.channels_last)
        return Workload(
            network,
            Losses(model, Objective.of(config)),
            Draws.random(network.batch, network.shape, config.timesteps, device),
            Draws.random(network.queries, network.shape, config.timesteps, device),
        )


@dataclass(frozen=True)
class Work:
    """What one row does, ready to be timed.

    Attributes:
        run: does it once; gives the scores `[M, S, Q]` of the first M methods and S samples, where
            it computes any.
        units: samples, or whatever else the row counts by, in one run.
    """

    run: Callable[[], Tensor | None]
    units: float


def scores(dots: Tensor, norms: Tensor) -> Tensor:
    """Scores by method, sample and query, `[M, S, Q]`.

    Args:
        dots: `[S, M·Q]`, of each sample's gradient with the queries' directions, method by method.
        norms: `[S]`, of the samples' gradients.
    """
    weights = torch.stack([weight(norms) for weight in WEIGHTS.values()])
    return torch.einsum("ms,smq->msq", weights, dots.unflatten(1, (len(WEIGHTS), -1)))
