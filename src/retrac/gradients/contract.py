"""What a pass over a batch is asked for: inner products and norms, or the gradients themselves."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrac.gradients.gradient import Dense, Gradient, squared_norms_of
from retrac.gradients.layers import LayerGroups
from retrac.gradients.layout import Directions, Layout
from retrac.gradients.precision import summed_in
from retrac.gradients.tape import per_sample_gradients
from retrac.gradients.views import in_groups, viewed

SMALL = 2**16
"""Numbers of a dense gradient that is kept until all others like it are there."""


def dots_and_norms(
    model: nn.Module,
    per_sample_losses: Callable[[], Tensor],
    directions: Mapping[str, Tensor] | Directions,
) -> tuple[Tensor, Tensor]:
    """Inner products of every sample's gradient with every direction, and its squared norm.

    One forward and one backward pass; no sample's gradient of the whole network ever exists.

    Args:
        model: any module; its parameters with `requires_grad` are the parameters.
        per_sample_losses: runs the forward pass and returns the B losses.
        directions: for each parameter's name `[M, *parameter.shape]`.

    Returns:
        `dots [B, M]` and `squared_norms [B]`, over all parameters together.

    Raises:
        CoverageError: some parameter's gradient would be incomplete; it is named.
        ValueError: the directions are not exactly those of the trainable parameters.
    """
    if not isinstance(directions, Directions):
        directions = Directions(dict(directions))
    ((dots, squared),) = viewed(model, per_sample_losses, Products(directions))
    return dots, squared


def dots_by_layer(
    model: nn.Module,
    per_sample_losses: Callable[[], Tensor],
    directions: Directions,
    groups: LayerGroups,
) -> tuple[Tensor, Tensor]:
    """What each group of layers adds to the inner products, in the same single pass.

    Args:
        model, per_sample_losses, directions: as for `dots_and_norms`.
        groups: L, of the trainable parameters.

    Returns:
        `dots [B, M, L]`, which add up to those of `dots_and_norms`, and `squared_norms [B]`, over
        all parameters together.

    Raises:
        CoverageError, ValueError: as `dots_and_norms`.
    """
    ((dots, squared),) = viewed(model, per_sample_losses, ProductsByLayer(directions, groups))
    return dots, squared


@dataclass(frozen=True, eq=False)
class Products:
    """The view of inner products with directions; for norms alone, with none.

    Attributes:
        directions: of all trainable parameters.
    """

    directions: Directions | None = None

    def names(self, model: nn.Module) -> Container[str]:
        """All trainable parameters, which must be those of the directions."""
        if self.directions is not None:
            check_directions(model, self.directions)
        return {name for name, _ in model.named_parameters()}

    def collect(self, passes: int) -> list["Contracted"]:
        """A fresh collector for each pass."""
        return [Contracted(self.directions) for _ in range(passes)]


class Contracted:
    """Takes gradients as they come, and adds up their inner products and squared norms."""

    def __init__(self, directions: Directions | None) -> None:
        self._directions = directions
        self._dots: list[Tensor] = []
        self._squared_norms: list[Tensor] = []
        self._small: list[tuple[Tensor, Tensor]] = []

    def __call__(self, name: str, gradient: Gradient) -> None:
        """Contract one parameter's gradients."""
        like = gradient.values if isinstance(gradient, Dense) else gradient.b
        rows = (
            like.new_empty(0, gradient.layout.size)
            if self._directions is None
            else self._directions.rows(name, gradient.layout)
        )
        if isinstance(gradient, Dense) and gradient.layout.size <= SMALL:
            self._small.append((gradient.values, rows))
        else:
            self._contract(gradient, rows)

    def rows(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """`dots [B, M]` and `squared_norms [B]`; zeros like the losses `[B]` where none came."""
        if self._small:  # one product for all of them
            values, rows = (torch.cat(parts, 1) for parts in zip(*self._small, strict=True))
            self._contract(Dense(values, Layout.in_order(values.shape[1:])), rows)
        if not self._dots:
            count = self._directions.count if self._directions else 0
            return losses.new_zeros(len(losses), count), torch.zeros_like(losses)
        return torch.stack(self._dots).sum(0), torch.stack(self._squared_norms).sum(0)

    def _contract(self, gradient: Gradient, rows: Tensor) -> None:
        dots, squared_norms = gradient.dots_and_norms(rows)
        self._dots.append(dots)
        self._squared_norms.append(squared_norms)


@dataclass(frozen=True, eq=False)
class ProductsByLayer:
    """The view of inner products with directions, group of layers by group of layers.

    Attributes:
        directions: of all trainable parameters.
        groups: of these.
    """

    directions: Directions
    groups: LayerGroups

    def names(self, model: nn.Module) -> Container[str]:
        """All trainable parameters, which must be those of the directions."""
        return Products(self.directions).names(model)

    def collect(self, passes: int) -> list["ContractedByLayer"]:
        """A fresh collector for each pass."""
        return [ContractedByLayer(self.directions, self.groups) for _ in range(passes)]


class ContractedByLayer:
    """Takes gradients as they come, each to the others of its group."""

    def __init__(self, directions: Directions, groups: LayerGroups) -> None:
        self._place = groups.place
        self._groups = [Contracted(directions) for _ in groups.names]

    def __call__(self, name: str, gradient: Gradient) -> None:
        """Contract one parameter's gradients."""
        self._groups[self._place[name]](name, gradient)

    def rows(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """`dots [B, M, L]` and `squared_norms [B]`."""
        dots, squared = zip(*(group.rows(losses) for group in self._groups), strict=True)
        return torch.stack(dots, 2), torch.stack(squared).sum(0)


def squared_norms(model: nn.Module, per_sample_losses: Callable[[], Tensor]) -> Tensor:
    """Squared norm of every sample's gradient, over all parameters together, `[B]`.

    Takes and raises what `dots_and_norms` does.
    """
    ((_, squared),) = viewed(model, per_sample_losses, Products())
    return squared


def grouped_gradients(
    model: nn.Module, per_sample_losses: Callable[[], Tensor], size: int = 1
) -> tuple[dict[str, tuple[Layout, Tensor]], Tensor]:
    """Gradients of the summed losses of consecutive groups of samples, in memory.

    Args:
        model: as for `dots_and_norms`.
        per_sample_losses: runs the forward pass and returns the B losses.
        size: samples in a group; B is a multiple of it.

    Returns:
        For each parameter's name its layout and `[B / size, n]`, and the squared norms
        `[B / size]` over all parameters together.

    Raises:
        CoverageError: some parameter's gradient would be incomplete; it is named.
        ValueError: B is not a multiple of the size.
    """
    gradients: dict[str, tuple[Layout, Tensor]] = {}
    squared_norms: list[Tensor] = []

    def consume(name: str, gradient: Gradient) -> None:
        values = gradient.materialise()
        gradients[name] = (gradient.layout, values)
        squared_norms.append(squared_norms_of(values))

    losses = per_sample_gradients(model, per_sample_losses, in_groups(consume, size))
    groups = len(losses) // size
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in gradients:
            precision = summed_in(parameter.dtype)
            zeros = parameter.new_zeros(groups, parameter.numel(), dtype=precision)
            gradients[name] = (Layout.of(parameter), zeros)
    return gradients, torch.stack([losses.new_zeros(groups), *squared_norms]).sum(0)


def check_directions(model: nn.Module, directions: Directions) -> None:
    """Hold directions against the model's trainable parameters.

    Raises:
        ValueError: a name is missing or too many, or a shape or precision is another.
    """
    needed = {n: _describe(p) for n, p in model.named_parameters() if p.requires_grad}
    given = {n: _describe(tensor, skip=1) for n, tensor in directions.parameters().items()}
    if needed != given:
        wrong = min(name for name in {*needed, *given} if needed.get(name) != given.get(name))
        raise ValueError(
            f"directions do not match the trainable parameters: {wrong!r} should be "
            f"{needed.get(wrong, 'absent')} but is {given.get(wrong, 'absent')}"
        )


def _describe(tensor: Tensor, skip: int = 0) -> str:
    precision = summed_in(tensor.dtype)
    return f"{list(tensor.shape[skip:])} of {str(precision).removeprefix('torch.')}"
