"""Tables from which the scores of any plan can be put together, exactly.

For one query at one checkpoint, at the 100 timesteps of the published plan and 44 noises at each:
the inner products of every single-draw gradient with the gradients of training samples, and the
Gram matrix of a timestep's draws, in which is the norm of every average of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.plan import Plan
from retrac.attribution.ranking import evenly_spread
from retrac.attribution.replay import Replay
from retrac.attribution.sample_scores import replayed
from retrac.diffusion.loss import Loss
from retrac.diffusion.shown import Seen, Shown
from retrac.files import write_whole
from retrac.gradients import Directions, Layout, grouped_gradients
from retrac.training.run import Run

TIMESTEPS = 100
REFERENCE = range(16)
"""Draws of the published plan that all others are held against."""
TEST = range(16, 32)
"""Draws independent of those, at every timestep their own."""
PARTNERS = range(32, 40)
"""The first draws of TEST with the sign of the noise turned."""
SHARED = range(40, 44)
"""Draws whose noises are the same at all timesteps, and for all queries."""

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Table:
    """One query at one checkpoint: T timesteps, D draws at each, S training samples.

    Attributes:
        dots: `[T, D, S]`, of each draw's gradient with each sample's.
        gram: `[T, D, D]`, of the draws of a timestep.
        norms: `[S]`, of the samples' gradients at the last event before the checkpoint.
        weights: `[S]`, how much that event counts.
    """

    dots: np.ndarray
    gram: np.ndarray
    norms: np.ndarray
    weights: np.ndarray

    def save(self, path: Path) -> None:
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(self))

    @staticmethod
    def load(path: Path) -> "Table":
        with np.load(path) as arrays:
            return Table(**arrays)


@dataclass(frozen=True, eq=False)
class Samples:
    """Gradients of some training samples, evenly spread, at the events of training."""

    gradients: Directions
    norms: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(run: Run, model: nn.Module, replay: Replay, count: int) -> "Samples":
        chosen = np.array(evenly_spread(len(run.dataset), count))
        parts: dict[str, list[Tensor]] = {}
        squared = []
        for shown in replayed(run, replay.epochs, chosen).split(_BATCH):
            gradients, squared_norms = _gradients(model, run.objective, shown)
            for name, (layout, values) in gradients.items():
                parts.setdefault(name, []).append(layout.unpack(values))
            squared.append(squared_norms)
        return Samples(
            Directions({name: torch.cat(found) for name, found in parts.items()}),
            torch.cat(squared).sqrt().numpy(),
            replay.weights[0, chosen],
        )


def fill(run: Run, model: nn.Module, samples: Samples, image: Tensor, seed: int) -> Table:
    """Fill the table of one query `[C, H, W]`."""
    steps = run.timesteps
    timesteps = torch.from_numpy(np.linspace(1, steps - 1, TIMESTEPS).astype(np.int64))
    noises = noises_of(image, seed)
    dots = torch.zeros(*noises.shape[:2], samples.gradients.count)
    gram = torch.zeros(*noises.shape[:2], noises.shape[1])
    for moment, timestep in enumerate(timesteps):
        noise = noises[moment]
        same = Seen(image.expand_as(noise))
        shown = Shown(same, timestep.expand(len(noise)), noise)
        gradients, _ = _gradients(model, run.objective, shown)
        for name, (layout, rows) in gradients.items():
            dots[moment] += rows @ samples.gradients.rows(name, layout).T
            gram[moment] += rows @ rows.T
    return Table(dots.numpy(), gram.numpy(), samples.norms, samples.weights)


def noises_of(image: Tensor, seed: int) -> Tensor:
    """All draws of a query, `[T, D, C, H, W]`."""
    every = torch.arange(TIMESTEPS)
    own = Plan(every, len(REFERENCE) + len(TEST), seed).draw(image)
    partners = -own[:, TEST.start : TEST.start + len(PARTNERS)]
    shared = Plan(every[:1], len(SHARED), seed + 1).draw(torch.zeros_like(image))
    return torch.cat((own, partners, shared.expand(TIMESTEPS, *shared.shape[1:])), 1)


def _gradients(
    model: nn.Module, objective: Loss, shown: Shown
) -> tuple[dict[str, tuple[Layout, Tensor]], Tensor]:
    given = shown.on(shown.noise.device)
    return grouped_gradients(model, lambda: objective.losses(model, *given))
