"""The query side: one direction in parameter space per query and method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrac.attribution.asked import Asked
from retrac.attribution.finite import refuse_not_finite
from retrac.attribution.memory import Split
from retrac.attribution.plan import Plan
from retrac.diffusion.loss import Loss
from retrac.diffusion.shown import Seen, fast_memory_format
from retrac.gradients import Directions, Layout, grouped_gradients
from retrac.gradients.gradient import squared_norms_of
from retrac.gradients.weights import Weight


@dataclass(frozen=True, eq=False)
class QueryGradients:
    """Directions of some queries at one checkpoint.

    Attributes:
        directions: M·Q rows, weight by weight: `(1/T') Σ_t w(‖ḡ_t‖) ḡ_t`.
        norms: `[Q, T']`, ‖ḡ_t‖ over all parameters together.
    """

    directions: Directions
    norms: Tensor


def query_gradients(
    model: nn.Module,
    objective: Loss,
    plan: Plan,
    queries: Asked,
    weights: Sequence[Weight],
    split: Split,
    names: Sequence[str],
    checkpoint: str,
    advance: Callable[[int], None] = lambda timesteps: None,
) -> QueryGradients:
    """Average each query's gradient over noises, weight each timestep, average over timesteps.

    One forward and backward pass over a block of timesteps, of one query or of several, gives `ḡ_t`
    of each of them. Every method's direction is a weighted sum of those, the gradient of the
    re-weighted loss `Σ_t c_t L_t` with c_t held constant (Xie et al. 2024, eq. 4 and 7), so that
    more methods cost no further pass.

    Args:
        model: the network at a checkpoint.
        objective: the run's loss.
        plan: timesteps and noises.
        queries: Q of them, on the CPU.
        weights: M, of each gradient by its norm.
        split: how many timesteps, whose gradients are held in memory, and noises make a pass.
        names: the queries' ids, for errors.
        checkpoint: its name, for errors.
        advance: told how many timesteps each pass has done.

    Raises:
        RetracError: a gradient that is not finite; query and checkpoint are named.
    """
    device = next(model.parameters()).device
    size, steps = queries.size, len(plan.timesteps)
    block, group = min(steps, split.timesteps), max(1, split.timesteps // steps)
    rows: dict[str, tuple[Layout, Tensor]] = {}
    norms = torch.zeros(size, steps)
    for first in range(0, size, group):
        some = slice(first, first + group)
        asked = queries.rows(some)
        noise = asked.noises(plan)
        for start in range(0, steps, block):
            part = slice(start, start + block)
            timesteps = plan.timesteps[part]
            gradients, squared = gradients_by_timestep(
                model,
                objective,
                asked.at(part, len(timesteps)).on(device),
                timesteps.repeat(asked.size).to(device),
                noise[:, part].flatten(0, 1).to(device),
                split.noises,
            )
            norm = squared.sqrt().unflatten(0, (asked.size, -1))
            refuse_not_finite(
                torch.isfinite(norm).all(1),
                lambda row, first=first: f"query {names[first + row]!r} at {checkpoint}",  # type: ignore[misc]
            )
            norms[some, part] = norm.cpu()
            factors = torch.stack([weight(norm) for weight in weights], 1) / steps
            while gradients:  # gone before the next pass needs the memory
                name, (layout, values) = gradients.popitem()
                if name not in rows:
                    empty = values.new_zeros(len(weights), size, values.shape[1])
                    rows[name] = (layout, empty)
                sums = factors @ values.unflatten(0, (asked.size, -1))  # [Q, M, n]
                rows[name][1][:, some] += sums.transpose(0, 1)
                del values, sums
            advance(len(squared))
    flat = {name: (layout, values.flatten(0, 1)) for name, (layout, values) in rows.items()}
    return QueryGradients(Directions.from_rows(flat), norms)


def gradients_by_timestep(
    model: nn.Module,
    objective: Loss,
    seen: Seen,
    timesteps: Tensor,
    noise: Tensor,
    together: int,
) -> tuple[dict[str, tuple[Layout, Tensor]], Tensor]:
    """Gradients `[T, n]` by parameter, and squared norms `[T]`, each a mean over the noises.

    Args:
        model, objective: as for `query_gradients`.
        seen: T images, one for each timestep.
        timesteps: `[T]`.
        noise: `[T, m, …]`.
        together: noises of each timestep in a pass.
    """
    noises = noise.shape[1]

    def some(noise: Tensor) -> tuple[dict[str, tuple[Layout, Tensor]], Tensor]:
        count = noise.shape[1]
        flat = fast_memory_format(noise.flatten(0, 1))
        same = seen.repeated(count).on(flat.device)

        def losses() -> Tensor:
            moments = timesteps.repeat_interleave(count)
            return objective.losses(model, same, moments, flat) / noises

        return grouped_gradients(model, losses, count)

    first, *others = noise.split(together, 1)
    gradients, squared = some(first)
    for other in others:
        more, _ = some(other)
        for name, (_, values) in gradients.items():
            values += more.pop(name)[1]
    if others:
        norms = [squared_norms_of(values) for _, values in gradients.values()]
        squared = torch.stack(norms).sum(0)
    return gradients, squared
