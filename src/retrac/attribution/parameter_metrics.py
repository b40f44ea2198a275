"""Metrics of parameters: what becomes of a query's direction before it meets gradients of samples.

They take what a run or its network tells of curvature, not features of samples. Free of torch's
import, as the records of methods are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from retrac.errors import RetracError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retrac.attribution.replay import Replay
    from retrac.attribution.scorer import Scorer
    from retrac.gradients.layout import Directions

Turn: TypeAlias = "Callable[[Directions], Directions]"

FORMAT = 2
"""Of a curvature that was fitted: another meaning of its numbers has another one."""
EIGENBASIS_EVENTS, EIGENVALUE_EVENTS = 4, 4
"""Events of each sample at which either is measured."""
BETA2, EPS = 0.999, 1e-8
"""Of torch's Adam, as the runs are trained with it."""


class ParameterMetric(Protocol):
    """Something that is fitted to a checkpoint, and changes queries' directions."""

    def directions(self, scorer: "Scorer", model: "nn.Module", replay: "Replay") -> Turn:
        """Fit it.

        Args:
            scorer: of the run.
            model: the network at the checkpoint, with the parameters that count trainable.
            replay: the checkpoint and its events.

        Raises:
            RetracError: the run lacks what it takes.
        """
        ...


@dataclass(frozen=True)
class SecondMoment:
    """Adam's own scaling: each number of a direction is divided by `√v̂ + eps`.

    v̂ is the optimiser's bias-corrected mean square of gradients, as the run has saved it with the
    checkpoint (Kingma and Ba 2015, algorithm 1).
    """

    def directions(self, scorer: "Scorer", model: "nn.Module", replay: "Replay") -> Turn:
        """Read the optimiser's state.

        Raises:
            RetracError: it was not saved, or the optimiser has none.
        """
        scales = adam_scales(replay.checkpoint.path, model)

        def turn(directions: "Directions") -> "Directions":
            return directions.scaled(scales)

        return turn


@dataclass(frozen=True)
class Curvature:
    """Influence functions by EK-FAC: `(H + λI)⁻¹`, H the Fisher information of the output.

    Targets are drawn from a normal distribution around the network's output, as in Mlodozeniec et
    al. 2024 (arXiv 2410.13850, section 2.2): the curvature is that of the squared error, also where
    the run's loss is absolute. Fitted at events of the samples, and kept in the run's folder.

    Attributes:
        damping: λ in a layer's mean eigenvalues.
        format: of a fitted curvature.
        events: of each sample, at which eigenbases and eigenvalues are measured.
    """

    damping: float = 0.1
    format: int = field(default=FORMAT, init=False)
    events: tuple[int, int] = field(default=(EIGENBASIS_EVENTS, EIGENVALUE_EVENTS), init=False)

    def directions(self, scorer: "Scorer", model: "nn.Module", replay: "Replay") -> Turn:
        """Fit it, or read what was fitted before.

        Raises:
            RetracError: a layer is too wide; it is named.
        """
        from retrac.attribution.curvatures import curvature

        fitted = curvature(scorer, model, replay)
        return lambda directions: fitted.precondition(directions, self.damping)


def adam_scales(checkpoint: Path, model: "nn.Module") -> "dict[str, Tensor]":
    """`1 / (√v̂ + eps)` of every trainable parameter.

    Raises:
        RetracError: the checkpoint has no such state.
    """
    import torch

    from retrac.gradients.precision import summed_in
    from retrac.training.state import OPTIMIZER, read_tensors

    path = checkpoint / OPTIMIZER
    if not path.is_file():
        raise RetracError(
            f"{checkpoint} has no {OPTIMIZER}, from which Adam's metric is made: leave the method "
            "out of --methods, or use a run of `retrac train`"
        )
    state = read_tensors(path)
    scales = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        moment, step = state.get(f"{number}/exp_avg_sq"), state.get(f"{number}/step")
        if moment is None or step is None or moment.shape != parameter.shape:
            raise RetracError(
                f"{path} has no mean square of the gradients of {name!r}: Adam's metric is "
                "for runs that were trained by Adam"
            )
        if not (torch.isfinite(moment).all() and (moment >= 0).all()):
            raise RetracError(
                f"{path} is damaged: the mean square of the gradients of {name!r} has numbers that "
                "none can be"
            )
        corrected = moment.double() / (1 - BETA2 ** float(step))
        scale = 1 / (corrected.sqrt() + EPS)
        scales[name] = scale.to(parameter.device, summed_in(parameter.dtype))
    return scales
