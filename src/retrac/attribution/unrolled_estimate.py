"""What carrying queries back through a window will need, measured on one step of it."""

from collections.abc import Container

import numpy as np
import torch

from retrac.attribution.unrolled_work import UnrolledWork
from retrac.estimate import Estimate, peak_bytes, seconds_of
from retrac.unrolled import Adjoint, step_back


def estimate_unrolled(work: UnrolledWork, there: Container[str]) -> Estimate | None:
    """Estimate what is left of a window's work; None where nothing is.

    Args:
        work: of some queries.
        there: names of pieces that are kept.

    Raises:
        RetracError: as the work.
    """
    random = [*work.sets, np.array([], int)] if work.sets else []
    missing = len(work.bank.missing(random)) + (len(work.queries) if work.sets else 0)
    carried = work.name in there
    if carried and not missing:
        return None
    window = work.window()
    share, count = work.share(window), len(window.steps)
    first, state = window.steps[0], window.state()
    replayed = seconds_of(lambda: window.take(first))
    seconds, memory = count * missing * replayed, 0
    if not carried:
        blocks = -(-len(work.queries) // share.queries)
        held = min(share.queries, len(work.queries))
        upon = torch.randn(held, window.layout.size, dtype=window.parameters[0].dtype)
        adjoint = Adjoint.of(upon.to(window.device), state)
        step = window.taken(first, state, share.rows)
        back = seconds_of(lambda: step_back(window.update, window.parameters, step, adjoint))
        seconds += count * blocks * ((1 + (share.states < count)) * replayed + back)
        memory = min(share.states, count) * state.nbytes + held * state.nbytes
    scores = 8 * len(work.queries) * work.plan.run.size
    kept = len(work.queries) * state.nbytes  # how far it has come
    disk = missing * window.layout.size * 4 + (0 if carried else kept + 2 * scores)
    return Estimate(seconds, peak_bytes(window.device.type) + memory, disk)
