"""The formulas of docs/architecture.md as plain loops in float64: one draw, one event at a time."""

import numpy as np
import torch
from torch import Tensor

from retrac.attribution.plan import Plan
from retrac.diffusion.shown import Seen
from retrac.training.inputs import training_inputs
from retrac.training.run import Checkpoint, Run


def gradient(run: Run, model: torch.nn.Module, x: Tensor, t: int, noise: Tensor) -> Tensor:
    """∇L(θ; x, t, ε) as one flat vector."""
    (loss,) = run.objective.losses(model, Seen(x[None]), torch.tensor([t]), noise[None])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def query_direction(run: Run, model: torch.nn.Module, plan: Plan, x: Tensor, method: str) -> Tensor:
    """(1/T') Σ_t ḡ_t, each at unit norm for ReTrac."""
    found = []
    for t, noises in zip(plan.timesteps.tolist(), plan.draw(x), strict=True):
        mean = torch.stack([gradient(run, model, x, t, noise) for noise in noises]).mean(0)
        found.append(mean / mean.norm() if method == "retrac" else mean)
    return torch.stack(found).mean(0)


def scores(
    run: Run, checkpoint: Checkpoint, interval: range, queries: Tensor, plan: Plan, method: str
) -> np.ndarray:
    """What one checkpoint contributes, `[Q, N]`, with every visit of its interval replayed."""
    model = checkpoint.load(run.shape).double()
    own = plan.at(checkpoint.epoch)
    directions = [query_direction(run, model, own, x, method) for x in queries]
    result = np.zeros((len(queries), len(run.dataset)))
    weights = {(s.epoch, s.step): s.learning_rate / s.batch_size for s in run.steps}
    step = min(s.step for s in run.steps if s.epoch == interval[0])
    for epoch in interval:
        for batch in run.ledger.batches(epoch, run.config.batch_size):
            for sample in batch:
                seen, t, noise = training_inputs(
                    run.dataset, run.ledger, epoch, np.array([sample]), run.config.flip
                )
                g = gradient(run, model, seen.clean[0], int(t), noise[0])
                if method == "retrac":
                    g = g / g.norm()
                for query, direction in enumerate(directions):
                    result[query, sample] += weights[epoch, step] * float(direction @ g)
            step += 1
    return result
