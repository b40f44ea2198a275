"""What a pass does with every parameter: the route, what it takes, and how long it took."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from retrac.gradients.allocation import Sizes
from retrac.gradients.gradient import Factored, Gradient
from retrac.gradients.routes import Route, Shape, Work, choose, contractions, dense, projected
from retrac.gradients.rules import rule_for
from retrac.gradients.speed import now
from retrac.gradients.tape import Consumer, per_sample_gradients

Counter = Callable[[str, Gradient], tuple[Route, Work]]
"""A parameter's name and gradients -> the way a pass takes with them."""


@dataclass(frozen=True)
class Owned:
    """A trainable parameter and where it belongs.

    Attributes:
        name: of the parameter.
        layer: the type of the layer that owns it.
        rule: the function that gives its per-sample gradients.
        numbers: how many it has.
    """

    name: str
    layer: str
    rule: str
    numbers: int


@dataclass(frozen=True)
class Line:
    """What a pass did with one parameter.

    Attributes:
        route: which way its gradients were contracted.
        work: what that takes.
        shape: of its gradients in factored form; None for vectors.
        seconds: it took.
    """

    route: Route
    work: Work
    shape: Shape | None
    seconds: float


def owned(model: nn.Module) -> list[Owned]:
    """All trainable parameters, in the model's order, each once."""
    found: dict[Tensor, Owned] = {}
    for name, layer in model.named_modules():
        for own, parameter in layer._parameters.items():
            if parameter is not None and parameter.requires_grad and parameter not in found:
                found[parameter] = Owned(
                    f"{name}.{own}" if name else own,
                    type(layer).__name__,
                    rule_for(layer).__name__,
                    parameter.numel(),
                )
    return list(found.values())


def contraction(directions: int) -> Counter:
    """The way of a pass that gives inner products with so many directions, and norms."""

    def count(name: str, gradient: Gradient) -> tuple[Route, Work]:
        if isinstance(gradient, Factored):
            route = choose(gradient.shape, directions)
            return route, contractions(gradient.shape, directions)[route]
        batch, numbers = gradient.values.shape
        return "vector", dense(batch, numbers, directions, gradient.values.element_size())

    return count


def sketching(sizes: Sizes) -> Counter:
    """The way of a pass that gives sketches."""

    def count(name: str, gradient: Gradient) -> tuple[Route, Work]:
        inputs, outputs = sizes[name]
        if isinstance(gradient, Factored):
            across, over = gradient.channels
            left = gradient.b.new_zeros(across, inputs) if inputs < across else None
            right = gradient.b.new_zeros(over, outputs) if outputs < over else None
            return "project", projected(gradient.shape, gradient.project(left, right).shape)
        batch, numbers = gradient.values.shape
        kept = inputs if inputs < numbers else 0
        return "vector", dense(batch, numbers, kept, gradient.values.element_size())

    return count


def watch(
    model: nn.Module,
    per_sample_losses: Callable[[], Tensor],
    consume: Consumer,
    finish: Callable[[Tensor], object],
    count: Counter,
) -> dict[str, Line]:
    """Run a pass, and time what it does with each parameter's gradients.

    Args:
        model: as for `dots_and_norms`.
        per_sample_losses: runs the forward pass and returns the B losses.
        consume: what the pass does with gradients.
        finish: what it does in the end, given the losses: the product for all vectors together,
            whose time is shared out among them by their size.
        count: the ways it takes.

    Returns:
        By parameter's name, in the order of the backward pass.
    """
    device = next(model.parameters()).device
    lines: dict[str, Line] = {}
    lengths: dict[str, int] = {}

    def timed(name: str, gradient: Gradient) -> None:
        route, work = count(name, gradient)
        shape = gradient.shape if isinstance(gradient, Factored) else None
        if shape is None:
            lengths[name] = gradient.layout.size
        start = now(device)
        consume(name, gradient)
        lines[name] = Line(route, work, shape, now(device) - start)

    losses = per_sample_gradients(model, per_sample_losses, timed)
    start = now(device)
    finish(losses)
    seconds = now(device) - start
    for name, length in lengths.items():
        part = seconds * length / sum(lengths.values())
        lines[name] = replace(lines[name], seconds=lines[name].seconds + part)
    return lines
