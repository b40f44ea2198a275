"""This library."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.cost.workload import Work, Workload, scores
from retrac.attribution.asked import Asked
from retrac.attribution.config import FeatureConfig, PlanConfig
from retrac.attribution.memory import Split
from retrac.attribution.plan import Plan
from retrac.attribution.query_gradients import query_gradients
from retrac.diffusion.measurements import Measurement
from retrac.diffusion.shown import Seen
from retrac.gradients import Directions, Layout, dots_and_norms, grouped_gradients
from retrac.gradients.allocation import allocate, allocate_evenly, measure_sides
from retrac.gradients.sketch import Projection, sketches
from retrac.gradients.sketch_layout import SketchLayout
from retrac.gradients.views import viewed
from retrac.gradients.weights import WEIGHTS
from retrac.store.bins import TIMESTEPS
from retrac.store.index import Index
from retrac.store.intervals import INTERVALS
from retrac.training.config import RecordConfig
from retrac.training.ledger import Ledger
from retrac.training.recording import Recorder

NOISES = 8
"""Of a query's plan, at each timestep, as the default plan has."""
SKETCH = 8192
"""About how many numbers a sketch has, by default."""


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
    pixels = workload.queries.images[:1].cpu()
    image = Asked(Seen(pixels), pixels)
    model, objective = workload.losses.model, workload.losses.objective
    split = Split(1, workload.network.batch, block, NOISES)

    def run() -> None:
        query_gradients(
            model, objective, plan, image, tuple(WEIGHTS.values()), split, ["0"], "none"
        )

    return Work(run, len(plan.timesteps) * NOISES)


def sketching_pass(workload: Workload) -> Work:
    """What an index holds of a batch, for both methods."""
    losses, samples = workload.losses, workload.samples
    projection = _layout_of_sketches(losses, workload).projection

    def run() -> None:
        rows = sketches(losses, lambda: losses(*samples), projection)
        norms = torch.linalg.vector_norm(rows, dim=1)
        torch.stack([weight(norms)[:, None] * rows for weight in WEIGHTS.values()])

    return Work(run, workload.network.batch)


def feature_pass(measurements: tuple[Measurement, ...], workload: Workload) -> Work:
    """Features of a batch: gradients of some measurements, every layer in as many numbers."""
    losses, samples = workload.losses, workload.samples
    sides = measure_sides(losses, lambda: losses(*samples))
    projection = Projection(0, allocate_evenly(sides, FeatureConfig().layer_numbers))
    batch = (Seen(samples.images), samples.timesteps, samples.noise)
    measured = partial(losses.objective.measure, losses.model, *batch, measurements)

    def run() -> None:
        viewed(losses, measured, projection)

    return Work(run, workload.network.batch)


def recorded_step(workload: Workload) -> Work:
    """A plain training step that is recorded."""
    losses, batch, record = workload.losses, workload.network.batch, RecordConfig()
    sketch = _layout_of_sketches(losses, workload).to_json()
    by_bin = {"sketch": sketch, "bins": record.bins}
    features = {INTERVALS: {"sketch": sketch}, TIMESTEPS: by_bin}
    index, ledger = Index(Path(), {"features": features}), Ledger(0, batch, 1000)
    recorder = Recorder(index, losses, ledger, Accelerator(cpu=True), record.weights)
    indices = np.arange(batch)

    def run() -> None:
        losses.zero_grad(set_to_none=True)
        with recorder.watch() as tape:
            tape.record(lambda: losses(*workload.samples)).mean().backward()
            tape.flush()
        recorder.visit(0, indices, 1e-3, 1 / batch)

    return Work(run, batch)


def _layout_of_sketches(losses: nn.Module, workload: Workload) -> SketchLayout:
    sides = measure_sides(losses, lambda: losses(*workload.samples))
    return SketchLayout.of(0, sides, allocate(sides, SKETCH))


def query_plan(workload: Workload, timesteps: int) -> Plan:
    """Make a plan of so many timesteps."""
    config = PlanConfig(plan_timesteps=timesteps, plan_noises=NOISES)
    return Plan.of(config, workload.losses.objective.process.timesteps)


def query_rows(workload: Workload) -> dict[str, tuple[Layout, Tensor]]:
    """One direction for each method and query, method by method: by parameter, `[M·Q, n]`."""
    losses = workload.losses
    gradients, squared_norms = grouped_gradients(losses, lambda: losses(*workload.queries))
    weights = torch.stack([weight(squared_norms.sqrt()) for weight in WEIGHTS.values()])
    rows = {}
    while gradients:  # each is freed as soon as its rows are there
        name, (layout, values) = gradients.popitem()
        rows[name] = (layout, (weights[:, :, None] * values).flatten(0, 1))
    return rows
