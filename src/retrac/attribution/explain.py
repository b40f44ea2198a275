"""Runs one pass over one batch, and times what it does with every parameter."""

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from statistics import median_low

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.config import TRAINED, AttributeConfig, ComputeConfig
from retrac.attribution.explanation import Explanation, Times
from retrac.attribution.scorer import Scorer
from retrac.attribution.sketched import lay_out
from retrac.diffusion.shown import Shown
from retrac.errors import RetracError
from retrac.gradients.contract import Products
from retrac.gradients.explain import Line, contraction, owned, sketching, watch
from retrac.gradients.gradient import Gradient
from retrac.gradients.layout import Directions, Layout
from retrac.gradients.routes import Shape
from retrac.gradients.sketch import Projection
from retrac.gradients.speed import measure_machine, now
from retrac.gradients.tape import per_sample_gradients
from retrac.training.run import Run

SECONDS = 5.0
"""No further round of measurements begins after so long."""
ROUNDS = (2, 7)
"""At least, since what is done for the first time takes longer, and at most."""

Watched = Callable[[], dict[str, Line]]
"""Runs a pass and says what it did with each parameter."""


def explain(
    run: Run,
    *,
    queries: int = 16,
    sketch_size: int | None = None,
    samples: int | None = None,
    parameters: str = TRAINED,
    compute: ComputeConfig | None = None,
) -> Explanation:
    """Time a pass at the last checkpoint: an exact one for both methods, or a sketching one.

    Args:
        run: a training run.
        queries: of an exact pass; no more are taken than fit into the memory budget.
        sketch_size: numbers of a sketch; makes it a sketching pass.
        samples: in the pass; as many as fit if None.
        parameters: "trained", "all", "lora", or a regular expression that is found in their names.
        compute: where, and in how much memory.

    Raises:
        RetracError: a number below 1, a damaged checkpoint, too little memory.
    """
    for option, value in (("queries", queries), ("sketch-size", sketch_size), ("samples", samples)):
        if value is not None and value < 1:
            raise RetracError(f"--{option} must be at least 1, not {value}")
    config = AttributeConfig(
        checkpoints=(run.checkpoints[-1].epoch,),
        parameters=parameters,
        compute=compute or ComputeConfig(),
    )
    scorer = Scorer.of(run, config)
    model = scorer.model(scorer.replays[0])
    counting = owned(model)
    if sketch_size is None:
        split = scorer.split(model, queries)
        together, fitting, size = split.queries, split.batch, 0
    else:
        layout = lay_out(run, model, sketch_size)
        together, fitting, size = 0, scorer.rows(model), layout.size
    batch = _batch(scorer, min(samples or fitting, fitting, len(run.dataset)))

    def losses() -> Tensor:
        return run.objective.losses(model, *batch)

    names = {parameter.name for parameter in counting}
    if sketch_size is None:
        watched = _exact_pass(model, losses, together * len(scorer.methods))
    else:
        watched = _sketching_pass(model, losses, layout.projection)
    lines, times = _measure(model, losses, batch.seen.clean, names, watched)
    shapes = [line.shape for line in lines.values() if line.shape]
    largest = max(shapes, key=lambda shape: shape.operations, default=Shape(8, 1, 1, 1, 1, 1, 1))
    every = sum(parameter.numel() for parameter in model.parameters())
    return Explanation(
        counting,
        lines,
        every - sum(parameter.numbers for parameter in counting),
        batch.size,
        queries,
        together,
        size,
        measure_machine(scorer.device, largest),
        times,
    )


def _batch(scorer: Scorer, count: int) -> Shown:
    """The first visits."""
    visits = scorer.visits(scorer.replays[0], np.arange(count))
    return visits.rows(slice(count)).on(scorer.device)


def _exact_pass(model: nn.Module, losses: Callable[[], Tensor], count: int) -> Watched:
    layouts: dict[str, Layout] = {}

    def keep(name: str, gradient: Gradient) -> None:
        layouts[name] = gradient.layout

    like = per_sample_gradients(model, losses, keep)
    directions = Directions.from_rows(  # of any numbers: they do not matter to the time
        {name: (layout, like.new_ones(count, layout.size)) for name, layout in layouts.items()}
    )

    def watched() -> dict[str, Line]:
        (contracted,) = Products(directions).collect(1)
        return watch(model, losses, contracted, contracted.rows, contraction(count))

    return watched


def _sketching_pass(
    model: nn.Module, losses: Callable[[], Tensor], projection: Projection
) -> Watched:
    def watched() -> dict[str, Line]:
        (collected,) = projection.collect(1)
        return watch(model, losses, collected, collected.rows, sketching(projection.sizes))

    return watched


def _measure(
    model: nn.Module,
    losses: Callable[[], Tensor],
    images: Tensor,
    names: Container[str],
    watched: Watched,
) -> tuple[dict[str, Line], Times]:
    """Run all four side by side, a few times: a machine whose speed drifts treats them alike."""
    rounds: list[dict[str, Line]] = []
    seconds: list[Times] = []
    everything = {name for name, _ in model.named_parameters()}

    def training() -> None:
        losses().mean().backward()
        model.zero_grad(set_to_none=True)

    def bare() -> None:
        images.requires_grad_(True)
        torch.autograd.grad(losses().sum(), images)
        images.requires_grad_(False)

    def taped() -> None:
        per_sample_gradients(model, losses, lambda name, gradient: None)

    def seconds_of(work: Callable[[], object], trainable: Container[str]) -> float:
        with _trainable(model, trainable):
            start = now(images.device)
            work()
            return now(images.device) - start

    begun = now(images.device)
    least, most = ROUNDS
    while len(rounds) < least or (len(rounds) < most and now(images.device) - begun < SECONDS):
        seconds.append(
            Times(
                seconds_of(training, everything),
                seconds_of(bare, ()),
                seconds_of(taped, names),
                seconds_of(lambda: rounds.append(watched()), names),
            )
        )
    lines = {
        name: replace(line, seconds=median_low(found[name].seconds for found in rounds))
        for name, line in rounds[0].items()
    }
    return lines, Times(
        *(median_low(column) for column in zip(*map(astuple, seconds), strict=True))
    )


@contextmanager
def _trainable(model: nn.Module, names: Container[str]) -> Iterator[None]:
    """Let exactly these parameters be trained, for a while."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    try:
        yield
    finally:
        for parameter, trained in before.items():
            parameter.requires_grad_(trained)
