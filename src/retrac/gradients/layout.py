"""The order in which a gradient's numbers lie in memory, and the way back to the parameter's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """A parameter's numbers in the order in which its gradient is cheapest to form.

    Attributes:
        shape: sizes of the axes as they lie in memory.
        axes: the axes of `shape` in the order of the parameter's own.
        parameter: the parameter's shape; neighbouring axes may have become one.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    parameter: tuple[int, ...]

    @staticmethod
    def of(parameter: Tensor) -> "Layout":
        """The parameter's own order."""
        return Layout.in_order(parameter.shape)

    @staticmethod
    def in_order(shape: Sequence[int]) -> "Layout":
        """The order of the axes of a shape."""
        return Layout(tuple(shape), tuple(range(len(shape))), tuple(shape))

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return prod(self.shape)

    def exchanged(self, one: int, two: int) -> "Layout":
        """The same with two axes of memory in each other's place."""
        places = {one: two, two: one}
        shape = tuple(self.shape[places.get(axis, axis)] for axis in range(len(self.shape)))
        return Layout(shape, tuple(places.get(axis, axis) for axis in self.axes), self.parameter)

    def pack(self, tensors: Tensor) -> Tensor:
        """`[M, *parameter]` -> `[M, n]`; a view where memory already lies so."""
        inverse = [self.axes.index(axis) for axis in range(len(self.axes))]
        split = tensors.reshape(len(tensors), *(self.shape[axis] for axis in self.axes))
        return split.permute(0, *(axis + 1 for axis in inverse)).reshape(len(tensors), self.size)

    def unpack(self, rows: Tensor) -> Tensor:
        """`[M, n]` -> `[M, *parameter]`; a view unless axes have to be joined."""
        split = rows.view(len(rows), *self.shape).permute(0, *(axis + 1 for axis in self.axes))
        return split.reshape(len(rows), *self.parameter)


class Directions:
    """Vectors in parameter space to contract per-sample gradients with.

    Args:
        tensors: for each parameter's name, `[M, *parameter.shape]`.

    Raises:
        ValueError: there are none, or not equally many for each parameter.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        counts = {len(tensor) for tensor in tensors.values()}
        if len(counts) != 1:
            raise ValueError(
                f"directions of unequal number: {sorted(counts)}" if counts else "no directions"
            )
        self.count = counts.pop()
        layouts = {name: Layout.in_order(tensor.shape[1:]) for name, tensor in tensors.items()}
        self._rows = {
            name: (layout, tensors[name].reshape(self.count, layout.size))
            for name, layout in layouts.items()
        }

    @staticmethod
    def from_rows(rows: dict[str, tuple[Layout, Tensor]]) -> "Directions":
        """Take over rows `[M, n]` that already lie in the order of their layouts."""
        directions = Directions.__new__(Directions)
        directions._rows = dict(rows)
        directions.count = len(next(iter(rows.values()))[1])
        return directions

    def rows(self, name: str, layout: Layout) -> Tensor:
        """Give a parameter's directions `[M, n]` in a layout; rearranged once, then kept so."""
        known, rows = self._rows[name]
        if known != layout:
            rows = layout.pack(known.unpack(rows)).contiguous()
            self._rows[name] = (layout, rows)
        return rows

    def split(self, lots: int) -> "list[Directions]":
        """Equal lots of consecutive directions, in the same memory."""
        size = self.count // lots
        return [
            Directions.from_rows(
                {
                    name: (layout, rows[start : start + size])
                    for name, (layout, rows) in self._rows.items()
                }
            )
            for start in range(0, self.count, size)
        ]

    def take(self, others: "Directions") -> None:
        """Take the numbers of as many other directions, in the memory of these."""
        for name, (layout, rows) in self._rows.items():
            rows.copy_(others.rows(name, layout))

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Multiply each parameter's numbers, in place."""
        for name, (_, rows) in self._rows.items():
            rows.mul_(weights[name])

    def scaled(self, factors: Mapping[str, Tensor]) -> "Directions":
        """Each parameter's numbers times factors of its shape."""
        return Directions.from_rows(
            {
                name: (layout, rows * layout.pack(factors[name][None]))
                for name, (layout, rows) in self._rows.items()
            }
        )

    def parameters(self) -> dict[str, Tensor]:
        """`[M, *parameter.shape]` for each parameter's name."""
        return {name: layout.unpack(rows) for name, (layout, rows) in self._rows.items()}
