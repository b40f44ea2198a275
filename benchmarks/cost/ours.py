"""This library."""

import torch
from torch import Tensor

from benchmarks.cost.workload import METHODS, Work, Workload, scores
from retrac.gradients import Directions, Layout, dots_and_norms, grouped_gradients
from retrac.gradients.weighting import WEIGHTINGS
from retrac.influence.config import PlanConfig
from retrac.influence.plan import Plan
from retrac.influence.query_gradients import query_gradients

NOISES = 4
"""Of a query's plan, at each timestep."""


def scoring_pass(workload: Workload) -> Work:
    """Both methods, exact, in one pass over a batch."""
    directions = Directions.from_rows(query_rows(workload))
    losses, samples = workload.losses, workload.samples

    def run() -> Tensor:
        dots, squared_norms = dots_and_norms(losses, lambda: losses(*samples), directions)
        return scores(dots, squared_norms.sqrt())

    return Work(run, workload.network.batch)


def query_gradient(workload: Workload) -> Work:
    """Both methods, exact, in two passes over a batch, so that adding up is part of it."""
    block = max(1, workload.network.batch // NOISES)
    plan = query_plan(workload, 2 * block)
    image = workload.queries.images[:1].cpu()
    model, objective = workload.losses.model, workload.losses.objective

    def run() -> None:
        query_gradients(model, objective, plan, image, METHODS, block, ["0"], "none")

    return Work(run, len(plan.timesteps) * NOISES)


def query_plan(workload: Workload, timesteps: int) -> Plan:
    """Make a plan of so many timesteps."""
    config = PlanConfig(plan_timesteps=timesteps, plan_noises=NOISES)
    return Plan.of(config, len(workload.losses.objective.alphas_bar))


def query_rows(workload: Workload) -> dict[str, tuple[Layout, Tensor]]:
    """One direction for each method and query, method by method: by parameter, `[M·Q, n]`."""
    losses = workload.losses
    gradients, squared_norms = grouped_gradients(losses, lambda: losses(*workload.queries))
    weights = torch.stack([WEIGHTINGS[method](squared_norms.sqrt()) for method in METHODS])
    rows = {}
    while gradients:  # each is freed as soon as its rows are there
        name, (layout, values) = gradients.popitem()
        rows[name] = (layout, (weights[:, :, None] * values).flatten(0, 1))
    return rows
