"""Loading the next piece while the present one is computed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def ahead(items: Iterable[Item], load: Callable[[Item], Loaded]) -> Iterator[tuple[Item, Loaded]]:
    """Give each item with what `load` makes of it, one item ahead in a thread of its own."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        waiting: tuple[Item, Future[Loaded]] | None = None
        for item in items:
            begun = (item, worker.submit(load, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = begun
        if waiting is not None:
            yield waiting[0], waiting[1].result()
