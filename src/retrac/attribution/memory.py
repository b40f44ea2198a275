"""How to split the work so that it stays within a memory budget."""

from dataclasses import dataclass

import torch
from torch import nn

from retrac.attribution.config import ComputeConfig, parse_bytes
from retrac.attribution.plan import Plan
from retrac.diffusion.loss import Loss
from retrac.diffusion.shown import Seen
from retrac.errors import RetracError
from retrac.gradients.memory import activation_bytes, free_bytes, model_bytes, weight_bytes
from retrac.gradients.routes import TEMPORARY_BYTES

MOST_ROWS = 256
"""Images in a pass: more of them make it no faster, even where every operation is small."""

USABLE = 0.85
"""Of a budget; the rest is for memory that was freed in pieces of other sizes."""


@dataclass(frozen=True)
class Split:
    """Sizes of the parts that are in memory at one time.

    Attributes:
        queries: in a block.
        batch: visits in a pass of the train side.
        timesteps: in a pass of the query side; more than a plan has are those of several queries.
        noises: of each of them in that pass.
    """

    queries: int
    batch: int
    timesteps: int
    noises: int


def rows_within(model: nn.Module, objective: Loss, example: Seen, config: ComputeConfig) -> int:
    """Images in a pass that computes norms alone.

    Raises:
        RetracError: the budget cannot hold one image.
    """
    device = next(model.parameters()).device
    fixed = model_bytes(model) + TEMPORARY_BYTES
    row = activation_bytes(model, lambda: _probe(model, objective, example))
    budget = budget_of(config, device)
    if budget < fixed + row:
        raise RetracError(
            f"a memory budget of {_megabytes(budget / USABLE)} is too small for this network: it "
            f"needs at least {_megabytes((fixed + row) / USABLE)}; raise --memory-budget"
        )
    return max(1, min(MOST_ROWS, (budget - fixed) // row))


def split_work(
    model: nn.Module,
    objective: Loss,
    example: Seen,
    plan: Plan,
    queries: int,
    methods: int,
    config: ComputeConfig,
) -> Split:
    """Divide the memory budget between query gradients and one batch.

    Raises:
        RetracError: the budget cannot hold one query and one image.
    """
    device = next(model.parameters()).device
    budget = budget_of(config, device)
    weights = weight_bytes(model)
    row = activation_bytes(model, lambda: _probe(model, objective, example))
    direction = methods * weights
    fixed = model_bytes(model) + TEMPORARY_BYTES
    noise = row + 2 * weights  # the sum, and what comes to it
    least = fixed + direction + noise
    if budget < least:
        raise RetracError(
            f"a memory budget of {_megabytes(budget / USABLE)} is too small for this network: it "
            f"needs at least {_megabytes(least / USABLE)}; raise --memory-budget"
        )
    free = budget - fixed
    block = max(1, min(queries, free // 2 // direction))
    left = free - block * direction
    if left < noise:
        block, left = 1, free - direction
    timestep = plan.noises * row + weights
    whole = left >= timestep
    return Split(
        queries=block,
        batch=max(1, min(MOST_ROWS, left // row)),
        timesteps=max(1, min(MOST_ROWS // plan.noises, left // timestep)),
        noises=plan.noises if whole else max(1, min(plan.noises, (left - 2 * weights) // row)),
    )


def _probe(model: nn.Module, objective: Loss, example: Seen) -> torch.Tensor:
    seen = example.repeated(2).on(next(model.parameters()).device)
    timesteps = torch.zeros(2, dtype=torch.int64, device=seen.clean.device)
    return objective.losses(model, seen, timesteps, seen.clean)


def budget_of(config: ComputeConfig, device: torch.device) -> int:
    """What may be planned with."""
    given = parse_bytes(config.memory_budget) if config.memory_budget else free_bytes(device) // 2
    return int(USABLE * given)


def _megabytes(amount: float) -> str:
    return f"{amount / 2**20:.0f}MB"
