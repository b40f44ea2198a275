"""What is dear to make and asked for again and again, kept in memory while there is room."""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from torch import Tensor

ROOM = 2**30
"""Bytes that are kept, at the most."""

Key = TypeVar("Key", bound=Hashable)
Row = tuple[Tensor, ...]


class Kept(Generic[Key]):
    """Tensors by key.

    What came first stays: work goes over its keys again and again in the same order, where keeping
    the latest would keep what is asked for last.

    Args:
        make: gives the rows of some keys, in order.
        together: keys that are made at a time.
        room: bytes that are kept, at the most.
    """

    def __init__(
        self, make: Callable[[list[Key]], Sequence[Row]], together: int, room: int = ROOM
    ) -> None:
        self._make = make
        self._together = together
        self._room = room
        self._rows: dict[Key, Row] = {}

    def __getitem__(self, keys: Sequence[Key]) -> list[Row]:
        """The rows of some keys."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        found: dict[Key, Row] = {}
        for start in range(0, len(missing), self._together):
            some = missing[start : start + self._together]
            for key, row in zip(some, self._make(some), strict=True):
                found[key] = row
                self._keep(key, row)
        return [self._rows.get(key) or found[key] for key in keys]

    def _keep(self, key: Key, row: Row) -> None:
        size = sum(tensor.nbytes for tensor in row)
        if size <= self._room:
            self._room -= size
            self._rows[key] = row
