"""Scores of a model that was trained elsewhere in a plain loop: one event at a time."""

from typing import Any

import numpy as np
import torch

from retrac.attribution.asked import Queries
from retrac.attribution.config import PlanConfig
from retrac.attribution.plan import Plan
from retrac.diffusion.shown import Seen
from retrac.gradients import oracle
from retrac.training.adopted import AdoptedRun
from retrac.training.own import OwnRun


def expected_scores(
    run: AdoptedRun | OwnRun, queries: Queries, config: PlanConfig, method: str
) -> np.ndarray:
    """`[K, Q, N]`: expectations over events, all of a sample's alike; each checkpoint counts 1."""
    found = np.zeros((len(run.checkpoints), len(queries), run.size))
    for place, checkpoint in enumerate(run.checkpoints):
        model = checkpoint.load(run.shape)
        plan = Plan.of(config, run.timesteps).at(checkpoint.epoch)
        asked = queries.asked(run, plan)
        directions = []
        for row in range(len(queries)):
            means = []
            for step, t in enumerate(plan.timesteps):
                noises = plan.draw(asked.pixels[row], asked.seen.clean.shape[1:])[step]
                one = asked.rows([row]).at(slice(step, step + 1), 1).repeated(len(noises))
                rows = gradients(run, model, one, t.expand(len(noises)), noises)
                means.append(rows.mean(0))
            directions.append(mean_of(means, method))
        for sample in range(run.size):
            visits = []
            for event in range(run.visits.sampled):
                epoch = place * run.visits.sampled + event
                visits.append(gradients(run, model, *run.shown(epoch, np.array([sample])))[0])
            own = mean_of(visits, method)
            found[place, :, sample] = [float(direction @ own) for direction in directions]
    return found


def gradients(
    run: AdoptedRun | OwnRun, model: Any, seen: Seen, timesteps: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Flat rows `[B, n]`, by autograd, of the parameters that are left trainable."""
    found = oracle.per_sample_gradients(
        model, lambda: run.objective.losses(model, seen, timesteps, noise)
    )
    return torch.cat([rows.flatten(1) for rows in found.values()], 1)


def mean_of(rows: list[torch.Tensor], method: str) -> torch.Tensor:
    """Their mean, each at unit norm for ReTrac."""
    every = torch.stack(rows)
    return (every / every.norm(dim=1, keepdim=True) if method == "retrac" else every).mean(0)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-4 of the largest."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
