"""The train side: contributions of some samples at one checkpoint, at the events of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.finite import refuse_not_finite
from retrac.attribution.replay import Replay
from retrac.diffusion.loss import Loss
from retrac.diffusion.shown import Shown, together
from retrac.gradients import Directions, LayerGroups, dots_and_norms, dots_by_layer
from retrac.gradients.weights import Weight
from retrac.training.run import Run

CHUNK = 512
"""Visits in a finished piece of work, at the most."""
INPUTS = 64 * 2**20
"""Bytes of their images and noise, at the most: two pieces' are in memory at a time."""


def replayed(run: Run, epochs: Sequence[int], samples: np.ndarray) -> Shown:
    """What training showed the network of some samples in some epochs, epoch by epoch."""
    return together([run.shown(epoch, samples) for epoch in epochs])


def samples_in_piece(shape: tuple[int, int, int], visits: int) -> int:
    """Samples `[C, H, W]` with so many visits each in a finished piece of work."""
    return max(1, min(CHUNK, INPUTS // (2 * 4 * prod(shape))) // visits)


@dataclass(frozen=True, eq=False)
class SampleScores:
    """What one checkpoint contributes for some samples.

    Attributes:
        scores: float32 `[M, Q, S]`.
        norms: float32 `[S, V]`, gradient norm of each replayed visit.
        timesteps: int64 `[S, V]`.
        groups: float32 `[M, G, Q, S]`, what each group of visits adds to the scores.
        layers: float32 `[M, L, Q, S]`, what each group of layers adds; None where nobody asks.
    """

    scores: np.ndarray
    norms: np.ndarray
    timesteps: np.ndarray
    groups: np.ndarray
    layers: np.ndarray | None

    def arrays(self) -> dict[str, np.ndarray]:
        """By name; a single group is the scores."""
        found = {"scores": self.scores, "norms": self.norms, "timesteps": self.timesteps}
        if self.groups.shape[1] > 1:
            found["groups"] = self.groups
        return found if self.layers is None else {**found, "layers": self.layers}


def sample_scores(
    model: nn.Module,
    objective: Loss,
    visits: Shown,
    replay: Replay,
    samples: np.ndarray,
    directions: Directions,
    weights: Sequence[Weight],
    batch: int,
    ids: Sequence[str],
    groups: int = 1,
    layers: LayerGroups | None = None,
) -> SampleScores:
    """`⟨direction, Σ_v (η_v/B_v) w(‖g_v‖) g_v⟩` for each weight, query and sample.

    Args:
        model: the network at the checkpoint.
        objective: the run's loss.
        visits: the samples' replayed events, in rows, epoch by epoch.
        replay: the visits' weights.
        samples: S indices.
        directions: M·Q rows, weight by weight.
        weights: M, of each gradient by its norm.
        batch: visits in one forward and backward pass.
        ids: the dataset's sample ids, for errors.
        groups: G; every G-th visit belongs to the same one.
        layers: L, whose shares of the scores are wanted.

    Raises:
        RetracError: a gradient that is not finite; sample and checkpoint are named.
    """
    device = next(model.parameters()).device
    dots, squared = [], []
    for part in visits.split(batch):
        batch_dots, batch_norms = _pass(model, objective, part.on(device), directions, layers)
        dots.append(batch_dots.cpu())
        squared.append(batch_norms.cpu())
    count, epochs = len(samples), len(replay.epochs)
    norms = torch.cat(squared).sqrt().view(epochs, count)
    products = torch.cat(dots).unflatten(1, (len(weights), -1)).unflatten(0, (epochs, count))
    finite = torch.isfinite(norms).all(0) & torch.isfinite(products).all(0).flatten(1).all(1)
    refuse_not_finite(
        finite, lambda row: f"sample {ids[int(samples[row])]!r} at {replay.checkpoint.path.name}"
    )
    counted = torch.from_numpy(replay.weights[:, samples]).to(norms)
    factors = torch.stack([weight(norms) * counted for weight in weights])
    each = torch.stack(
        [
            torch.einsum("mvs,vsmql->mlqs", factors[:, group::groups], products[group::groups])
            for group in range(groups)
        ],
        dim=1,
    )  # [M, G, L, Q, S]
    return SampleScores(
        each.sum((1, 2)).numpy(),
        norms.T.numpy(),
        visits.timesteps.view(epochs, count).T.numpy(),
        each.sum(2).numpy(),
        None if layers is None else each.sum(1).numpy(),
    )


def _pass(
    model: nn.Module,
    objective: Loss,
    shown: Shown,
    directions: Directions,
    layers: LayerGroups | None,
) -> tuple[Tensor, Tensor]:
    """Products `[B, M·Q, L]`, and squared norms `[B]`."""

    def losses() -> Tensor:
        return objective.losses(model, *shown)

    if layers is not None:
        return dots_by_layer(model, losses, directions, layers)
    dots, squared = dots_and_norms(model, losses, directions)
    return dots[..., None], squared
