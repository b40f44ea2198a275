"""Progress bars with rate and remaining time, on stderr, for everything that takes a while."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        """Show the recent speed, or a dash while it is not known."""
        speed = task.finished_speed or task.speed
        rate = "–" if not speed else f"{speed:.1f}" if speed < 10 else f"{speed:.0f}"
        return Text(f"{rate} {task.fields['unit']}/s", no_wrap=True)


@contextmanager
def progress(
    description: str, total: int, unit: str, done: int = 0, shown: bool = True
) -> Iterator[Callable[..., None]]:
    """Show a bar while the body runs; yields `advance(steps, note=...)`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bar = Progress(*columns, console=Console(file=sys.stderr), disable=not shown)
    with bar:
        task = bar.add_task(description, total=total, completed=done, unit=unit, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            if note is not None:
                bar.update(task, note=note)
            bar.advance(task, steps)

        yield advance


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Say on a terminal what is going on, while it cannot be said for how long."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield
        return
    with console.status(f"{description} ..."):
        yield
