"""Query side and train side in sketches: what an index holds, and what is asked of it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.asked import Asked
from retrac.attribution.finite import refuse_not_finite
from retrac.attribution.plan import Plan
from retrac.attribution.replay import Replay
from retrac.diffusion.loss import Loss
from retrac.diffusion.shown import Shown
from retrac.gradients.allocation import Sides, allocate, measure_sides
from retrac.gradients.sketch import Projection, sketches
from retrac.gradients.sketch_layout import SketchLayout
from retrac.gradients.weights import Weight
from retrac.store.intervals import IntervalRows
from retrac.training.run import Run


def sides_of(run: Run, model: nn.Module) -> dict[str, Sides]:
    """The shapes of the gradients of a run's network, seen on two samples."""
    seen = run.example.repeated(2).on(next(model.parameters()).device)
    timesteps = torch.full((2,), run.timesteps // 2, device=seen.clean.device)
    noise = torch.ones_like(seen.clean)
    return measure_sides(model, lambda: run.objective.losses(model, seen, timesteps, noise))


def lay_out(run: Run, model: nn.Module, size: int) -> SketchLayout:
    """A layout of about so many numbers for sketches of a run's gradients."""
    sides = sides_of(run, model)
    return SketchLayout.of(run.ledger.seed, sides, allocate(sides, size))


def query_sketches(
    model: nn.Module,
    objective: Loss,
    plan: Plan,
    queries: Asked,
    weights: Sequence[Weight],
    projection: Projection,
    batch: int,
    names: Sequence[str],
    checkpoint: str,
    advance: Callable[[int], None] = lambda draws: None,
) -> tuple[Tensor, Tensor]:
    """Sketches of the directions that `query_gradients` gives, with norms by the sketch.

    Args:
        model: the network at a checkpoint.
        objective: the run's loss.
        plan: timesteps and noises.
        queries: Q of them, on the CPU.
        weights: M, of each gradient by its norm.
        projection: of the index.
        batch: draws in a pass.
        names: the queries' ids, for errors.
        checkpoint: its name, for errors.
        advance: told how many draws each pass has done.

    Returns:
        `[M, Q, d]`, and `[Q, T']` norms of the gradients averaged over noises.

    Raises:
        RetracError: a gradient that is not finite; query and checkpoint are named.
    """
    found, norms = [], []
    steps, draws = len(plan.timesteps), len(plan.timesteps) * plan.noises
    group = max(1, batch // draws)  # of queries whose draws share passes
    for first in range(0, queries.size, group):
        asked = queries.rows(slice(first, first + group))
        noise, same = asked.noises(plan).flatten(0, 2), asked.at(slice(None), steps)
        timesteps = plan.timesteps.repeat_interleave(plan.noises).repeat(asked.size)
        passes = []
        for part in Shown(same.repeated(plan.noises), timesteps, noise).split(batch):
            passes.append(_sketches(model, objective, part, projection))
            advance(part.size)
        by_timestep = torch.cat(passes).unflatten(0, (asked.size, steps, -1)).mean(2)
        norm = torch.linalg.vector_norm(by_timestep, dim=2)
        refuse_not_finite(
            torch.isfinite(norm).all(1),
            lambda row, first=first: f"query {names[first + row]!r} at {checkpoint}",  # type: ignore[misc]
        )
        factors = torch.stack([weight(norm) for weight in weights], 1) / steps
        found.append((factors @ by_timestep).float().cpu())
        norms.append(norm.cpu())
    return torch.cat(found).transpose(0, 1).contiguous(), torch.cat(norms)


def sample_sketches(
    model: nn.Module,
    objective: Loss,
    visits: Shown,
    replay: Replay,
    samples: np.ndarray,
    weights: Sequence[Weight],
    projection: Projection,
    batch: int,
    ids: Sequence[str],
) -> IntervalRows:
    """`Σ_v (η_v/B_v) w(‖g_v‖) S(g_v)` for each weight and sample, with norms by the sketch.

    Args:
        model: the network at the checkpoint.
        objective: the run's loss.
        visits: the samples' replayed events.
        replay: the visits' weights.
        samples: S indices.
        weights: M, of each gradient by its norm.
        projection: of the index.
        batch: visits in a pass.
        ids: the dataset's sample ids, for errors.

    Raises:
        RetracError: a gradient that is not finite; sample and checkpoint are named.
    """
    count, epochs = len(samples), len(replay.epochs)
    counted = torch.from_numpy(replay.weights[:, samples]).float().flatten()
    sums: Tensor | None = None
    norms = torch.zeros(epochs * count)
    for start in range(0, epochs * count, batch):
        part = slice(start, start + batch)
        rows = _sketches(model, objective, visits.rows(part), projection).cpu()
        norm = torch.linalg.vector_norm(rows, dim=1)
        norms[part] = norm
        where = torch.arange(start, start + len(rows)) % count
        refuse_not_finite(
            torch.isfinite(norm),
            lambda row, where=where: (  # type: ignore[misc]
                f"sample {ids[int(samples[where[row]])]!r} at {replay.checkpoint.path.name}"
            ),
        )
        if sums is None:
            sums = rows.new_zeros(len(weights), count, rows.shape[1])
        for weight, total in zip(weights, sums, strict=True):
            total.index_add_(0, where, (weight(norm) * counted[part])[:, None] * rows)
    assert sums is not None  # there is a visit
    names = [weight.__name__ for weight in weights]
    return IntervalRows(
        dict(zip(names, sums.numpy(), strict=True)),
        norms.view(epochs, count).T.numpy(),
        visits.timesteps.view(epochs, count).T.numpy(),
    )


def _sketches(model: nn.Module, objective: Loss, shown: Shown, projection: Projection) -> Tensor:
    given = shown.on(next(model.parameters()).device)
    return sketches(model, lambda: objective.losses(model, *given), projection)
