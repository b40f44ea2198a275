"""How a sketch is laid out: what it has of each parameter, and where each layer's numbers lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import Any

from retrac.gradients.allocation import Sides, Sizes, blocks_by_layer
from retrac.gradients.layers import layer_of
from retrac.gradients.sketch import Projection


@dataclass(frozen=True)
class SketchLayout:
    """Everything that decides a gradient's sketch.

    Attributes:
        seed: of the projections.
        sizes: what is there of each parameter, in order.
        widths: numbers of each layer, in order; they lie side by side.
    """

    seed: int
    sizes: Sizes
    widths: tuple[int, ...]

    @staticmethod
    def of(seed: int, sides: Mapping[str, Sides], sizes: Sizes) -> "SketchLayout":
        """For some parameters of a model, in its order."""
        layers = blocks_by_layer(sides, sizes).values()
        return SketchLayout(seed, sizes, tuple(place.stop - place.start for place in layers))

    @staticmethod
    def from_json(config: Mapping[str, Any]) -> "SketchLayout":
        """From what `to_json` gives."""
        sizes = {name: (int(a), int(b)) for name, (a, b) in config["sizes"].items()}
        return SketchLayout(int(config["seed"]), sizes, tuple(map(int, config["widths"])))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        sizes = {name: list(size) for name, size in self.sizes.items()}
        return {"seed": self.seed, "size": self.size, "sizes": sizes, "widths": list(self.widths)}

    @property
    def size(self) -> int:
        """Numbers of a whole sketch, d."""
        return sum(self.widths)

    @property
    def layers(self) -> list[slice]:
        """Where each layer's numbers lie."""
        return [slice(*ends) for ends in pairwise(accumulate(self.widths, initial=0))]

    @property
    def first_parameters(self) -> list[str]:
        """Of each layer, in order."""
        return [next(names) for _, names in groupby(self.sizes, layer_of)]

    @cached_property
    def projection(self) -> Projection:
        """Makes the sketches."""
        return Projection(self.seed, self.sizes)
