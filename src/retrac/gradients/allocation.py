"""How many numbers a sketch gives to each parameter's gradient, and where they lie in it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from torch import Tensor, nn

from retrac.gradients.gradient import Gradient
from retrac.gradients.layers import layer_of
from retrac.gradients.tape import per_sample_gradients

Sizes = Mapping[str, tuple[int, int]]
"""For each parameter's name, the channels of its inputs and outputs that a sketch keeps."""


LOPSIDED = 4
"""Numbers of outputs for one of inputs, where inputs are copied for each position of a kernel."""
FEW = 4
"""Channels of pixels or latents, at the most."""


@dataclass(frozen=True)
class Sides:
    """What a parameter's gradient has to be projected.

    Attributes:
        copies: parts that are projected alike: positions of the kernel, groups of channels.
        inputs: channels of the input, in each of them; for a dense gradient its numbers.
        outputs: likewise of the output; for a dense gradient 1.
    """

    copies: int
    inputs: int
    outputs: int

    @property
    def numbers(self) -> int:
        """How many the gradient has."""
        return self.copies * self.inputs * self.outputs

    @property
    def at_pixels(self) -> bool:
        """Whether it is of a convolution that reads or makes pixels."""
        return self.copies > 1 and min(self.inputs, self.outputs) <= FEW


def measure_sides(model: nn.Module, per_sample_losses: Callable[[], Tensor]) -> dict[str, Sides]:
    """The shapes of a model's gradients, by parameter.

    Args:
        model: as for `dots_and_norms`.
        per_sample_losses: runs the forward pass on a few samples.
    """
    sides: dict[str, Sides] = {}

    def consume(name: str, gradient: Gradient) -> None:
        inputs, outputs = gradient.channels
        sides[name] = Sides(gradient.layout.size // (inputs * outputs), inputs, outputs)

    per_sample_gradients(model, per_sample_losses, consume)
    return {name: sides[name] for name, _ in model.named_parameters() if name in sides}


def allocate(sides: Mapping[str, Sides], size: int) -> dict[str, tuple[int, int]]:
    """Give about `size` numbers to the parameters: all the same, and none more than it has.

    Convolutions at pixels come first, with at most half of the numbers: in few numbers they hold
    much of a gradient's squared norm (0.58 to 0.74 in small U-Nets), and whole they cost little.

    Args:
        sides: of all parameters.
        size: numbers of a whole sketch.
    """
    at_pixels = {name: side.numbers for name, side in sides.items() if side.at_pixels}
    others = {name: side.numbers for name, side in sides.items() if not side.at_pixels}
    first = _shared(at_pixels, size / 2 if others else size)
    given = {**first, **_shared(others, size - sum(first.values()))}
    return {name: _split(side, given[name]) for name, side in sides.items()}


def _shared(most: Mapping[str, int], size: float) -> dict[str, float]:
    """Shares of a size, as equal as can be with so many for each at the most."""
    shares: dict[str, float] = {}
    for place, name in enumerate(sorted(most, key=lambda name: most[name])):
        shares[name] = min(most[name], size / (len(most) - place))
        size -= shares[name]
    return shares


def allocate_evenly(sides: Mapping[str, Sides], numbers: int) -> dict[str, tuple[int, int]]:
    """Give every parameter about as many numbers, and none less than all if it has no more.

    A convolution gets at least one for each position of its kernel.

    Args:
        sides: of all parameters.
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
    for layer, members in groupby(blocks(sides, sizes).items(), lambda item: layer_of(item[0])):
        if layer in layers:
            raise ValueError(f"the parameters of layer {layer!r} are not neighbours in the sketch")
        parts = [part for _, part in members]
        layers[layer] = slice(parts[0].start, parts[-1].stop)
    return layers


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
