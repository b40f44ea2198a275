"""Metrics of parameters: what becomes of a query's direction before it meets gradients of samples.

They take what a run or its network tells of curvature, not features of samples. Free of torch's
import, as the records of methods are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from retrac.errors import RetracError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retrac.attribution.replay import Replay
    from retrac.attribution.scorer import Scorer
    from retrac.diffusion.measurements import Measurement
    from retrac.diffusion.shown import Shown
    from retrac.gradients.curvature import EKFAC, Covariances, Eigenvalues
    from retrac.gradients.layout import Directions
    from retrac.training.run import Run

Turn: TypeAlias = "Callable[[Directions], Directions]"

CURVATURE = "curvature"
"""Folder of a run's curvature, a file for each checkpoint and choice of parameters."""
EIGENBASIS_EVENTS, EIGENVALUE_EVENTS = 4, 4
"""Events of each sample at which either is measured."""


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
    """

    damping: float = 0.1

    def directions(self, scorer: "Scorer", model: "nn.Module", replay: "Replay") -> Turn:
        """Fit it, or read what was fitted before.

        Raises:
            RetracError: a layer is too wide; it is named.
        """
        found = curvature(scorer, model, replay)
        return lambda directions: found.precondition(directions, self.damping)


def adam_scales(checkpoint: Path, model: "nn.Module") -> "dict[str, Tensor]":
    """`1 / (√v̂ + eps)` of every trainable parameter.

    Raises:
        RetracError: the checkpoint has no such state.
    """

    from retrac.training.state import OPTIMIZER, read_tensors

    path = checkpoint / OPTIMIZER
    if not path.is_file():
        raise RetracError(
            f"{checkpoint} has no {OPTIMIZER}, from which 'adam' takes its metric: leave it out of "
            "--methods, or use a run of `retrac train`"
        )
    state = read_tensors(path)
    scales = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        moment, step = state.get(f"{number}/exp_avg_sq"), state.get(f"{number}/step")
        if moment is None or step is None or moment.shape != parameter.shape:
            raise RetracError(
                f"{path} has no mean square of the gradients of {name!r}: 'adam' is for runs that "
                "were trained by Adam"
            )
        corrected = moment.double() / (1 - BETA2 ** float(step))
        scales[name] = (1 / (corrected.sqrt() + EPS)).to(parameter)
    return scales


BETA2, EPS = 0.999, 1e-8
"""Of torch's Adam, as the runs are trained with it."""


def curvature(scorer: "Scorer", model: "nn.Module", replay: "Replay") -> "EKFAC":
    """The curvature at a checkpoint, from the run's folder if it is there.

    Raises:
        RetracError: a layer is too wide, a file is damaged, or no space is left.
    """
    from safetensors.torch import save_file

    from retrac.files import write_whole
    from retrac.gradients.curvature import EKFAC, Covariances, Eigenvalues
    from retrac.progress import progress
    from retrac.training.state import read_tensors

    run, path = scorer.run, curvature_place(scorer, replay)
    if path.is_file():
        device = next(model.parameters()).device
        state = {name: tensor.to(device) for name, tensor in read_tensors(path).items()}
        return EKFAC.of_state(state)
    batch = scorer.rows(model)
    rounds = curvature_rounds(run, replay.checkpoint.epoch)
    total = run.size * sum(map(len, rounds))
    with progress("curvature", total, "gradients") as advance, refusing_uncovered():
        covariances = Covariances()
        for shown, noise in curvature_events(run, rounds[0], batch, first=True):
            observe(scorer, model, shown, noise, covariances)
            advance(shown.size)
        eigenvalues = Eigenvalues(covariances.bases())
        for shown, noise in curvature_events(run, rounds[1], batch, first=False):
            observe(scorer, model, shown, noise, eigenvalues)
            advance(shown.size)
    found = eigenvalues.ekfac()
    path.parent.mkdir(exist_ok=True)
    with write_whole(path) as temporary:
        save_file(found.state(), temporary)
    return found


def curvature_place(scorer: "Scorer", replay: "Replay") -> Path:
    """The file of a checkpoint's curvature."""
    from retrac.fingerprints import digest

    run, epoch = scorer.run, replay.checkpoint.epoch
    precision = scorer.config.compute.precision
    about = (run.identity, scorer.pattern, precision, EIGENBASIS_EVENTS, EIGENVALUE_EVENTS)
    return run.path / CURVATURE / f"epoch-{epoch:04d}-{digest(*about)[:12]}.safetensors"


def curvature_rounds(run: "Run", epoch: int) -> "tuple[Sequence[int], Sequence[int]]":
    """Epochs before a checkpoint whose events make the bases, and those that make eigenvalues."""
    known = run.known_epochs(range(epoch))
    others = known[-EIGENBASIS_EVENTS - EIGENVALUE_EVENTS :]
    return known[-EIGENBASIS_EVENTS:], others[:EIGENVALUE_EVENTS]


@contextmanager
def refusing_uncovered() -> Iterator[None]:
    """Refuse networks that have no curvature by this method.

    Raises:
        RetracError: in place of a `CoverageError`.
    """
    from retrac.gradients.coverage import CoverageError

    try:
        yield
    except CoverageError as error:
        raise RetracError(f"no curvature of this network: {error}") from error


def observe(
    scorer: "Scorer",
    model: "nn.Module",
    shown: "Shown",
    noise: "Tensor",
    consumer: "Covariances | Eigenvalues",
) -> None:
    """Give one pass's gradients to either round; the arguments are those of `sampled_loss`."""
    from retrac.gradients.tape import per_sample_gradients

    per_sample_gradients(model, partial(sampled_loss, scorer, model, shown, noise), consumer)


def sampled_loss(scorer: "Scorer", model: "nn.Module", shown: "Shown", noise: "Tensor") -> "Tensor":
    """Scalars `[B]` whose gradients have the Fisher information of the output as second moment.

    `⟨ξ, output⟩` times √(2/D), D the numbers of an output: the mean square error's.

    Args:
        scorer: of the run.
        model: the network.
        shown: B events.
        noise: ξ = target - output, standard normal, `[B, …]`.
    """
    from retrac.diffusion.measurements import Predicted

    def sampled(predicted: Predicted) -> "Tensor":
        output = predicted.output
        size = math.prod(output.shape[1:])
        return (output * noise.to(output)).flatten(1).sum(1) * math.sqrt(2 / size)

    measurement: Measurement = sampled
    given = shown.on(next(model.parameters()).device)
    return scorer.run.objective.measure(model, *given, (measurement,))[0]


def curvature_events(
    run: "Run", epochs: "Sequence[int]", size: int, first: bool
) -> "Iterator[tuple[Shown, Tensor]]":
    """Events, and for each a ξ that depends on nothing but the event and the round."""
    import torch

    every = np.arange(run.size)
    for epoch in epochs:
        for start in range(0, len(every), size):
            shown = run.shown(epoch, every[start : start + size])
            shape = shown.noise.shape[1:]
            noise = [
                np.random.default_rng([run.ledger.seed, epoch, sample, int(first)]).standard_normal(
                    shape, dtype=np.float32
                )
                for sample in every[start : start + size].tolist()
            ]
            yield shown, torch.from_numpy(np.stack(noise))
