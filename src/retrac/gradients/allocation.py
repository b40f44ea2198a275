"""How many numbers a sketch gives to each parameter's gradient, and where they lie in it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

import torch
from torch import Tensor, nn

from retrac.gradients.gradient import Gradient
from retrac.gradients.tape import per_sample_gradients

Sizes = Mapping[str, tuple[int, int]]
"""For each parameter's name, the channels of its inputs and outputs that a sketch keeps."""


LEAST = 1 / 512
"""Of all numbers: a parameter that would get fewer gets none, unless it has no more."""
LOPSIDED = 4
"""Numbers of outputs for one of inputs, where inputs are copied for each position of a kernel."""


@dataclass(frozen=True)
class Sides:
    """What a parameter's gradient has to be projected.

    Attributes:
        copies: parts that are projected alike: positions of the kernel, groups of channels.
        inputs: channels of the input, in each of them; for a dense gradient its numbers.
        outputs: likewise of the output; for a dense gradient 1.
        share: of the squared norm, in [0, 1].
    """

    copies: int
    inputs: int
    outputs: int
    share: float

    @property
    def numbers(self) -> int:
        """How many the gradient has."""
        return self.copies * self.inputs * self.outputs


def measure_sides(model: nn.Module, *passes: Callable[[], Tensor]) -> dict[str, Sides]:
    """Where a model's gradients are, seen on a few samples.

    A parameter's share is the mean of its share in each sample's squared norm and of its share in
    the sum of them: what counts for normalised gradients, and for gradients as they are.

    Args:
        model: as for `dots_and_norms`.
        passes: each runs the forward pass on some of these samples, as `per_sample_losses` does.
    """
    found: dict[str, list[Tensor]] = {}
    geometry: dict[str, tuple[int, int, int]] = {}

    def consume(name: str, gradient: Gradient) -> None:
        found.setdefault(name, []).append(gradient.squared_norm().double())
        inputs, outputs = gradient.channels
        geometry[name] = (gradient.layout.size // (inputs * outputs), inputs, outputs)

    for per_sample_losses in passes:
        per_sample_gradients(model, per_sample_losses, consume)
    norms = {name: torch.cat(parts) for name, parts in found.items()}
    total = torch.stack(list(norms.values())).sum(0)
    tiny = torch.finfo(total.dtype).tiny
    names = [name for name, parameter in model.named_parameters() if name in norms]
    return {
        name: Sides(
            *geometry[name],
            share=float(
                0.5 * (norms[name] / total.clamp(min=tiny)).mean()
                + 0.5 * norms[name].sum() / total.sum().clamp(min=tiny)
            ),
        )
        for name in names
    }


def allocate(sides: Mapping[str, Sides], size: int) -> dict[str, tuple[int, int]]:
    """Give about `size` numbers to the parameters, by their shares of the squared norm: the fewest
    for inner products of a given accuracy. What needs no more than it has is whole, and what would
    get very few is left out, and costs nothing.

    Args:
        sides: of all parameters.
        size: numbers of a whole sketch.

    Returns:
        What is kept of the parameters that are not left out: always of the one with most.
    """
    given: dict[str, float] = {}
    left, open_names = float(size), set(sides)
    while open_names:  # what has enough is kept whole, and leaves the rest to the others
        shares = sum(sides[name].share for name in open_names) or 1.0
        rate = left / shares
        whole = {name for name in open_names if rate * sides[name].share >= sides[name].numbers}
        if not whole:
            given |= {name: rate * sides[name].share for name in open_names}
            break
        given |= {name: float(sides[name].numbers) for name in whole}
        left -= sum(sides[name].numbers for name in whole)
        open_names -= whole
    most = max(sides, key=lambda name: sides[name].share)
    return {
        name: _split(sides[name], given[name])
        for name in sides
        if given[name] >= min(LEAST * size, sides[name].numbers) or name == most
    }


def allocate_evenly(sides: Mapping[str, Sides], numbers: int) -> dict[str, tuple[int, int]]:
    """Give every parameter about as many numbers, and none less than all if it has no more.

    A convolution gets at least one for each position of its kernel.

    Args:
        sides: of all parameters; their shares do not matter.
        numbers: of each.
    """
    return {name: _split(side, numbers) for name, side in sides.items()}


def sketch_size(sides: Mapping[str, Sides], sizes: Sizes) -> int:
    """Numbers of a whole sketch, d."""
    return sum(_widths(sides, sizes))


def blocks(sides: Mapping[str, Sides], sizes: Sizes) -> dict[str, slice]:
    """Where in a sketch each parameter's numbers lie, in the order of `sizes`."""
    ends = accumulate(_widths(sides, sizes), initial=0)
    return {name: slice(*ends) for name, ends in zip(sizes, pairwise(ends), strict=True)}


def blocks_by_layer(sides: Mapping[str, Sides], sizes: Sizes) -> dict[str, slice]:
    """Where in a sketch each layer's numbers lie: those of its weight and bias together.

    Raises:
        ValueError: the parameters of a layer are not neighbours in `sizes`, as they are in the
            order of a model.
    """
    layers: dict[str, slice] = {}
    for layer, members in groupby(blocks(sides, sizes).items(), lambda item: _layer(item[0])):
        if layer in layers:
            raise ValueError(f"the parameters of layer {layer!r} are not neighbours in the sketch")
        parts = [part for _, part in members]
        layers[layer] = slice(parts[0].start, parts[-1].stop)
    return layers


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _widths(sides: Mapping[str, Sides], sizes: Sizes) -> list[int]:
    return [sides[name].copies * sizes[name][0] * sizes[name][1] for name in sizes]


def _split(sides: Sides, numbers: float) -> tuple[int, int]:
    """About as many numbers as given, spread over both sides."""
    if numbers >= sides.numbers:
        return sides.inputs, sides.outputs
    across = max(1.0, numbers / sides.copies)
    lopsided = across if sides.copies == 1 else across / LOPSIDED
    inputs = min(sides.inputs, max(1, round(math.sqrt(lopsided))))
    outputs = min(sides.outputs, max(1, round(across / inputs)))
    return min(sides.inputs, max(1, round(across / outputs))), outputs
