"""Linear maps of per-sample gradients to a few numbers, which is all that most callers want of
them: inner products with directions, and sketches."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn

from retrac.gradients.gradient import Gradient
from retrac.gradients.tape import Consumer, Losses, recorded


class Collector(Protocol):
    """Takes the gradients of one backward pass as they come."""

    def __call__(self, name: str, gradient: Gradient) -> None:
        """View one parameter's gradients."""
        ...

    def rows(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """What was seen of all parameters together.

        Args:
            losses: `[B]`, of the gradients that came.

        Returns:
            The numbers `[B, …]`, and the gradients' squared norms `[B]`.
        """
        ...


class View(Protocol):
    """A linear map of gradients to X numbers, layer by layer."""

    def names(self, model: nn.Module) -> Container[str]:
        """The model's trainable parameters that it looks at.

        Raises:
            ValueError: it is not a view of this model.
        """
        ...

    def collect(self, passes: int) -> Sequence[Collector]:
        """A fresh collector for each of so many backward passes after one forward pass."""
        ...


def viewed(
    model: nn.Module, per_sample_losses: Callable[[], Losses], view: View, group: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """Every sample's gradients in a view: one forward pass, and a backward pass for each loss.

    Parameters that the view does not look at are frozen meanwhile, and cost nothing.

    Args:
        model: as for `per_sample_gradients`.
        per_sample_losses: likewise.
        view: of the model's gradients.
        group: consecutive samples whose gradients are summed; B is a multiple of it.

    Returns:
        For each of the R losses the numbers `[B / group, X]` and squared norms `[B / group]`.

    Raises:
        CoverageError: some parameter's gradient would be incomplete; it is named.
        ValueError: B is not a multiple of the group, or the view is of another model.
    """
    with frozen_but(model, view.names(model)), recorded(model, per_sample_losses) as tape:
        collectors = view.collect(len(tape.losses))
        for collector in collectors:
            tape.backward(in_groups(collector, group))
    return [
        collector.rows(losses.unflatten(0, (-1, group)).sum(1))
        for collector, losses in zip(collectors, tape.losses, strict=True)
    ]


def in_groups(consume: Consumer, size: int) -> Consumer:
    """Hand gradients on that are summed over consecutive groups of `size` samples.

    Raises:
        ValueError: as it is called; the samples do not make groups of this size.
    """

    def consume_sums(name: str, gradient: Gradient) -> None:
        if len(gradient) % size:
            raise ValueError(f"{len(gradient)} samples do not make groups of {size}")
        consume(name, gradient.grouped(size))

    return consume if size == 1 else consume_sums


@contextmanager
def frozen_but(model: nn.Module, names: Container[str]) -> Iterator[None]:
    """Freeze all of a model's parameters but these."""
    others = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name not in names
    ]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
