"""The way back through a window: states kept at intervals, those between them taken again."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from retrac.diffusion.device import exact_convolutions
from retrac.errors import RetracError
from retrac.unrolled.backward import Adjoint, step_back
from retrac.unrolled.state import State
from retrac.unrolled.window import Window


class Swept(NamedTuple):
    """How far the way back has come.

    Attributes:
        step: number of the first step that is behind.
        adjoint: derivatives of Q measurements with respect to the state before it.
        effects: `[Q, N]`, with respect to the weights of the samples, of the steps behind.
    """

    step: int
    adjoint: Adjoint
    effects: Tensor


@dataclass(frozen=True)
class Segments:
    """Steps of a window, in stretches whose states fit into memory together.

    Attributes:
        steps: of the window.
        size: of a stretch, but for the last.
    """

    steps: range
    size: int

    @staticmethod
    def within(steps: range, states: int) -> "Segments":
        """The longest stretches of which so many states hold one, and the beginnings of all.

        Raises:
            RetracError: too few states.
        """
        count = len(steps)
        if states >= count:
            return Segments(steps, count)
        for size in range(states - 1, 0, -1):
            if size + math.ceil(count / size) <= states:
                return Segments(steps, size)
        raise RetracError(
            f"a window of {count} steps needs {least_states(count)} states of its training in "
            f"memory, and there is room for {states}: raise --memory-budget, or take a "
            "shorter window"
        )

    @property
    def starts(self) -> list[int]:
        """First step of each."""
        return list(self.steps[:: self.size])

    def of(self, start: int) -> range:
        """The steps of the one that starts there."""
        return range(start, min(start + self.size, self.steps.stop))


def least_states(steps: int) -> int:
    """The fewest states by which so many steps can be gone back."""
    return min(steps, *(size + math.ceil(steps / size) for size in range(1, steps + 1)))


def forward(
    window: Window, segments: Segments, until: int, advance: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, State]]:
    """Take the steps before one, and give the states at which stretches start.

    Args:
        window: that stands at its beginning.
        segments: its stretches.
        until: the step before which to stop.
        advance: called after each step.
    """
    starts = {*segments.starts}
    for step in range(segments.steps.start, until):
        if step in starts:
            yield step, window.state()
        window.take(step)
        advance()


def back(
    window: Window,
    segments: Segments,
    kept: dict[int, State],
    reached: Swept,
    rows: int,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Swept]:
    """Go back stretch by stretch.

    Args:
        window: whose steps these are.
        segments: its stretches.
        kept: the states at which those start that are not behind yet.
        reached: where the way back begins, or stood when it was stopped.
        rows: samples that are differentiated together.
        advance: called after each step.

    Yields:
        How far it has come, after each stretch.
    """
    _, adjoint, effects = reached
    for start in reversed(segments.starts):
        # Memory may have changed since it was stopped, and stretches with it.
        ahead = range(start, min(segments.of(start).stop, reached.step))
        if not ahead:
            continue
        states = _states(window, ahead, kept.pop(start))
        for step in reversed(ahead):
            taken = window.taken(step, states.pop(), rows)
            with exact_convolutions():
                adjoint, effect = step_back(window.update, window.parameters, taken, adjoint)
            effects[:, torch.from_numpy(window.batch(step))] += effect.to(effects)
            advance()
        yield Swept(start, adjoint, effects)


def _states(window: Window, steps: range, first: State) -> list[State]:
    """The states before each step."""
    window.put(first)
    states = [first]
    for step in steps[:-1]:
        window.take(step)
        states.append(window.state())
    return states
