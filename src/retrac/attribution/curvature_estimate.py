"""What fitting a curvature will need, by a pass of either round."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from retrac.attribution.costs import clocked, few, passes
from retrac.attribution.curvatures import (
    curvature_events,
    curvature_place,
    curvature_rounds,
    observe,
    refusing_uncovered,
)
from retrac.attribution.parameter_metrics import Curvature
from retrac.attribution.scorer import Scorer
from retrac.estimate import Estimate, peak_bytes, seconds_of
from retrac.gradients.curvature import Covariances, Eigenvalues


def estimate_curvature(scorer: Scorer) -> Estimate | None:
    """Estimate the fit at the last checkpoint; None where it is there, or little is to do.

    Raises:
        RetracError: the network has no such curvature.
    """
    run, replay = scorer.run, scorer.replays[-1]
    fitted = any(isinstance(method.parameter_metric, Curvature) for method in scorer.methods)
    if not fitted or curvature_place(scorer, replay).is_file():
        return None
    rounds = curvature_rounds(run, replay.checkpoint.epoch)
    load, model = clocked(lambda: scorer.model(replay))
    batch = scorer.rows(model)
    first, second = (run.size * len(epochs) for epochs in rounds)
    if few(passes(first + second, batch)):
        return None
    shown, noise = next(curvature_events(run, rounds[0], batch, first=True))
    covariances = Covariances()
    with refusing_uncovered():
        summed = seconds_of(lambda: observe(scorer, model, shown, noise, covariances))
        first_sums = _bytes_of(covariances.state())
        solved, bases = clocked(covariances.bases)
        eigenvalues = Eigenvalues(bases)
        squared = seconds_of(lambda: observe(scorer, model, shown, noise, eigenvalues))
        result = _bytes_of(eigenvalues.ekfac().state())
    return Estimate(
        load + solved + (first * summed + second * squared) / shown.size,
        peak_bytes(scorer.device.type),
        # As the second round ends: what the first gave, the second's sums, and the result.
        first_sums + _bytes_of(eigenvalues.state()) + result,
    )


def _bytes_of(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def without_curvature(scorer: Scorer) -> Scorer:
    """A scorer that takes as long but for its curvature, and fits none."""
    plain = (
        replace(method, parameter_metric=None)
        if isinstance(method.parameter_metric, Curvature)
        else method
        for method in scorer.methods
    )
    return replace(scorer, methods=tuple(plain))
