"""What a little of the work costs, from which the whole is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from retrac.attribution.parts import Left
from retrac.estimate import PASSES

SHORT = 64
"""Images that a pass counts at the most where it is asked whether there are only a few passes: 256
of a large network take minutes."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Costs:
    """Seconds for a checkpoint (to load it, and what else comes once), a draw, a visit."""

    checkpoint: float
    draw: float
    visit: float

    def seconds(self, left: Left) -> float:
        """Of all that is left."""
        return (
            left.checkpoints * self.checkpoint + left.draws * self.draw + left.visits * self.visit
        )


def passes(images: int, rows: int) -> float:
    """Passes of so many images, `rows` in each."""
    return images / min(rows, SHORT)


def few(passed: float) -> bool:
    """Whether so many passes are not worth an estimate."""
    return passed <= PASSES


def clocked(make: Callable[[], Made]) -> tuple[float, Made]:
    """How long something takes the first time, and what comes of it."""
    begun = time.perf_counter()
    made = make()
    return time.perf_counter() - begun, made
