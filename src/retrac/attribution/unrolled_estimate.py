"""What carrying queries back through a window will need, measured on one step of it."""

from collections.abc import Container

import numpy as np
import torch

from retrac.attribution.unrolled_work import UnrolledWork
from retrac.estimate import Estimate, peak_bytes, seconds_of
from retrac.unrolled import Adjoint, Window, step_back


def estimate_unrolled(work: UnrolledWork, there: Container[str]) -> Estimate | None:
    """Estimate the most that is left of a window's work; None where nothing is.

    Args:
        work: of some queries.
        there: names of pieces that are kept.

    Raises:
        RetracError: as the work.
    """
    carried, replays = work.name in there, 0
    if work.sets:  # each query's first ten are not known yet
        random = [np.array([], int), *work.sets]
        replays = len(work.bank.missing(random)) + len(work.queries)
    if carried and not replays:
        return None
    window = work.window()
    first, state = window.steps[0], window.state()
    replayed = seconds_of(lambda: window.take(first))
    one = work.queries.take([0])
    lost = seconds_of(lambda: work.measured(window, one))
    seconds = replays * work.steps * replayed
    seconds += lost * len(work.queries) * (len(work.sets) + 2) if work.sets else 0
    disk, memory = replays * window.layout.size * 4, 0
    if not carried:
        back, memory = _way_back(work, window, replayed)
        seconds += back + 3 * lost * len(work.queries)
        scores = 8 * len(work.queries) * work.plan.run.size
        disk += len(work.queries) * state.nbytes + 2 * scores  # with how far it has come
    return Estimate(seconds, peak_bytes(window.device.type) + memory, disk)


def _way_back(work: UnrolledWork, window: Window, replayed: float) -> tuple[float, int]:
    """Seconds of the way back of all queries, and bytes of what it keeps."""
    share, state, first = work.share(window), window.state(), window.steps[0]
    blocks = -(-len(work.queries) // share.queries)
    upon = torch.randn(share.queries, window.layout.size).to(window.parameters[0])
    adjoint, step = Adjoint.of(upon, state), window.taken(first, state, share.rows)
    back = seconds_of(lambda: step_back(window.update, window.parameters, step, adjoint))
    forward = (1 + (share.states < work.steps)) * replayed
    memory = (min(share.states, work.steps) + share.queries) * state.nbytes
    return work.steps * blocks * (forward + back), memory
