"""The paper's intervention: give samples the timestep where gradients are largest, and look again.

A method that follows content puts them where they were; one that follows norms puts them first
(Xie et al. 2024, section 4.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from retrac.attribution.asked import Queries
from retrac.attribution.config import AttributeConfig
from retrac.attribution.exact import exact_scores
from retrac.attribution.parts import Parts
from retrac.attribution.replay import Replay
from retrac.attribution.scorer import Scorer
from retrac.diffusion.shown import Shown
from retrac.errors import RetracError
from retrac.evaluation.bias import loudest_timestep
from retrac.interval import Interval, mean_interval
from retrac.training.run import Run


@dataclass(frozen=True, eq=False)
class MovedScorer(Scorer):
    """A scorer under which every visit was at one timestep.

    Attributes:
        moments: checkpoint's epoch -> that timestep.
    """

    moments: Mapping[int, int] = field(default_factory=dict)

    def visits(self, replay: Replay, samples: np.ndarray) -> Shown:
        """What training showed the network, but for the timestep."""
        found = super().visits(replay, samples)
        moment = self.moments[replay.checkpoint.epoch]
        return found._replace(timesteps=torch.full_like(found.timesteps, moment))


def moved_scores(
    run: Run,
    config: AttributeConfig,
    queries: Queries,
    samples: np.ndarray,
    moments: Mapping[int, int],
) -> dict[str, np.ndarray]:
    """Scores of samples as if they had been trained at other timesteps.

    Args:
        run: a training run.
        config: as the other samples were scored.
        queries: Q images.
        samples: S indices.
        moments: checkpoint's epoch -> timestep.

    Returns:
        By method that adds up events, float32 `[Q, S]`.

    Raises:
        RetracError: there is no such method.
    """
    usual = Scorer.of(run, config)
    if not usual.methods:
        raise RetracError("no method here adds up events, which could be moved")
    moved = MovedScorer(**vars(usual), moments=moments)
    found = exact_scores(moved, queries, samples, Parts(None, {})).score.sum(1)
    return dict(zip((method.name for method in usual.methods), found, strict=True))


def loudest_moments(timesteps: np.ndarray, norms: np.ndarray, epochs: np.ndarray) -> dict[int, int]:
    """The timestep with the largest usual norm at each checkpoint.

    Args:
        timesteps: `[K, N, V]` of replayed visits; below 0 where there is none.
        norms: `[K, N, V]`, there.
        epochs: `[K]` of the checkpoints.
    """
    return {
        int(epoch): loudest_timestep(t[t >= 0], norm[t >= 0])
        for epoch, t, norm in zip(epochs, timesteps, norms, strict=True)
    }


@dataclass
class Moving:
    """How often samples are among the first k of all, as they were trained and when moved.

    Args:
        samples: S indices of those that were moved.
        k: length of a list.
    """

    samples: np.ndarray
    k: int = 10
    _shares: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def update(self, scores: np.ndarray, moved: np.ndarray) -> None:
        """Take one query's scores `[N]`, and those of the moved samples `[S]`."""
        found = {"as trained": scores[self.samples], "moved": moved}
        for name, own in found.items():
            above = (scores[None] > own[:, None]).sum(1)
            # Its own former score is not a competitor.
            above -= scores[self.samples] > own
            self._shares.setdefault(name, []).append(above < self.k)

    def compute(self) -> dict[str, Interval]:
        """Shares of (query, sample), with intervals over samples."""
        return {
            f"in the first {self.k} {name}": mean_interval(np.mean(shares, 0))
            for name, shares in self._shares.items()
        }
