"""Which visits stand for a checkpoint, and how much each counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrac.training.run import Checkpoint, Run


@dataclass(frozen=True, eq=False)
class Replay:
    """The replayed visits of one checkpoint.

    Attributes:
        checkpoint: the weights at which gradients are computed.
        epochs: V epochs whose events are replayed, counted from 0.
        weights: `[V, N]`; how much each visit's gradient counts, Σ over V = `total`.
        total: `[N]`; w_k(i) = Σ η/B over all visits in the interval.
    """

    checkpoint: Checkpoint
    epochs: tuple[int, ...]
    weights: np.ndarray
    total: np.ndarray


def plan_replays(
    run: Run, checkpoints: Sequence[Checkpoint], replay: str, back: int = 0
) -> list[Replay]:
    """Let each checkpoint stand for the epochs since the one before it.

    Args:
        run: the run.
        checkpoints: by epoch.
        replay: "last", "all", or how many epochs of each interval, evenly spaced.
        back: number of the choice: each has other epochs, as long as there are so many left.
    """
    starts = [0, *(checkpoint.epoch for checkpoint in checkpoints)]
    return [
        _replay(checkpoint, range(start, checkpoint.epoch), replay, back, run)
        for start, checkpoint in zip(starts, checkpoints, strict=False)
    ]


LAST_EVENTS = 64
"""Events of each sample before a checkpoint that are looked back upon, at the most."""


def last_epochs(run: Run, checkpoint: Checkpoint, back: int = 0) -> list[int]:
    """The last epochs before a checkpoint whose events are known.

    Args:
        run: the run.
        checkpoint: its weights.
        back: number of the choice: each has the epochs before those of the one before, as long as
            there are as many.
    """
    known = list(run.known_epochs(range(checkpoint.epoch)))
    ends = range(len(known), LAST_EVENTS - 1, -LAST_EVENTS)
    turns = [known[end - LAST_EVENTS : end] for end in ends]
    return turns[back % len(turns)] if turns else known


def last_events(run: Run, checkpoint: Checkpoint, back: int = 0) -> Replay:
    """Let the last events before a checkpoint count alike, 1 together."""
    epochs = last_epochs(run, checkpoint, back)
    weights = np.full((len(epochs), run.size), 1 / len(epochs))
    return Replay(checkpoint, tuple(epochs), weights, np.ones(run.size))


def chosen_epochs(interval: Sequence[int], replay: str, back: int = 0) -> tuple[int, ...]:
    """Epochs among those of an interval to replay, evenly spaced, with the last.

    With `back`, another choice among those left over by the choices before it; when fewer
    are left than it takes, the first choice comes again.
    """
    count = {"last": 1, "all": len(interval)}.get(replay) or min(int(replay), len(interval))
    left, found = list(interval[::-1]), ()
    for _ in range(back % (len(interval) // count) + 1):
        taken = np.linspace(0, len(left), count, endpoint=False).astype(int)
        found = tuple(sorted(left[place] for place in taken))
        left = [epoch for epoch in left if epoch not in found]
    return found


def _replay(
    checkpoint: Checkpoint,
    interval: range,
    replay: str,
    back: int,
    run: Run,
) -> Replay:
    epochs = chosen_epochs(run.known_epochs(interval), replay, back)
    by_visit = run.visit_weights(interval)
    total = by_visit.sum(0)
    replayed = by_visit[[interval.index(epoch) for epoch in epochs]]
    # Their weighted mean stands for all visits, so that replaying all of them is the exact sum;
    # their plain mean where all of them fell on steps that did not count.
    counted = replayed.sum(0)
    shares = np.divide(
        replayed, counted, where=counted > 0, out=np.full_like(replayed, 1 / len(epochs))
    )
    weights = shares * total
    return Replay(checkpoint, epochs, weights, total)
