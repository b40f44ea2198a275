"""The curvature of a run's network at a checkpoint: fitted at events of its samples, kept on disk.

Targets are drawn from a normal distribution around the network's output, as in Mlodozeniec et al.
2024 (arXiv 2410.13850, section 2.2), so it is that of the squared error, also where the run's loss
is absolute.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from retrac.attribution.parameter_metrics import EIGENBASIS_EVENTS, EIGENVALUE_EVENTS, FORMAT
from retrac.attribution.replay import Replay
from retrac.attribution.scorer import Scorer
from retrac.diffusion.measurements import Measurement, Predicted
from retrac.diffusion.shown import Shown
from retrac.errors import RetracError
from retrac.files import remove, write_whole
from retrac.fingerprints import digest
from retrac.gradients.coverage import CoverageError
from retrac.gradients.curvature import EKFAC, Covariances, Eigenvalues
from retrac.gradients.gradient import Gradient
from retrac.gradients.tape import per_sample_gradients
from retrac.progress import progress
from retrac.training.run import Run
from retrac.training.state import read_tensors

CURVATURE = "curvature"
"""Folder of a run's curvature, a file for each checkpoint and choice of parameters."""


class Sums(Protocol):
    """What a round of passes adds up."""

    def __call__(self, name: str, gradient: Gradient) -> None:
        """Take one parameter's gradients."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything, for safetensors."""
        ...


AnySums = TypeVar("AnySums", bound=Sums)


def curvature(scorer: Scorer, model: nn.Module, replay: Replay) -> EKFAC:
    """The curvature at a checkpoint, from the run's folder if it is there.

    Stopped at any moment, the next call goes on after the last epoch of events that was finished.

    Raises:
        RetracError: a layer is too wide, a file is damaged, or no space is left.
    """
    path, device = curvature_place(scorer, replay), next(model.parameters()).device
    if not path.is_file():
        fitted = _fitted(scorer, model, replay, path)
        path.parent.mkdir(exist_ok=True)
        with write_whole(path) as temporary:
            save_file(fitted.state(), temporary)
        remove(_beside(path))
    return EKFAC.of_state(_read(path, device))


def curvature_place(scorer: Scorer, replay: Replay) -> Path:
    """The file of a checkpoint's curvature."""
    run, epoch = scorer.run, replay.checkpoint.epoch
    precision = scorer.config.compute.precision
    events = (EIGENBASIS_EVENTS, EIGENVALUE_EVENTS)
    about = (FORMAT, run.identity, scorer.pattern, precision, *events)
    return run.path / CURVATURE / f"epoch-{epoch:04d}-{digest(*about)[:12]}.safetensors"


def curvature_rounds(run: Run, epoch: int) -> tuple[Sequence[int], Sequence[int]]:
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
    try:
        yield
    except CoverageError as error:
        raise RetracError(f"no curvature of this network: {error}") from error


def observe(scorer: Scorer, model: nn.Module, shown: Shown, noise: Tensor, sums: Sums) -> None:
    """Give one pass's gradients to either round; the arguments are those of `sampled_loss`."""
    per_sample_gradients(model, partial(sampled_loss, scorer, model, shown, noise), sums)


def sampled_loss(scorer: Scorer, model: nn.Module, shown: Shown, noise: Tensor) -> Tensor:
    """Scalars `[B]` whose gradients have the Fisher information of the output as second moment.

    `⟨ξ, output⟩` times √(2w/D), D the numbers of an output and w the weight of its timestep: the
    mean square error's.

    Args:
        scorer: of the run.
        model: the network.
        shown: B events.
        noise: ξ = target - output, standard normal, `[B, …]`.
    """

    def sampled(predicted: Predicted) -> Tensor:
        output = predicted.output
        size = math.prod(output.shape[1:])
        scale = (2 / size * predicted.weight).sqrt()
        return (output * noise.to(output)).flatten(1).sum(1) * scale

    measurement: Measurement = sampled
    given = shown.on(next(model.parameters()).device)
    return scorer.run.objective.measure(model, *given, (measurement,))[0]


def curvature_events(
    run: Run, epochs: Sequence[int], size: int, first: bool
) -> Iterator[tuple[Shown, Tensor]]:
    """Events, and for each a ξ that depends on nothing but the event and the round."""
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


def _fitted(scorer: Scorer, model: nn.Module, replay: Replay, path: Path) -> EKFAC:
    run = scorer.run
    bases, values = curvature_rounds(run, replay.checkpoint.epoch)
    with (
        progress("curvature", run.size * (len(bases) + len(values)), "gradients") as advance,
        refusing_uncovered(),
    ):
        summed = partial(_summed, scorer, model, folder=_beside(path), advance=advance)
        first = summed("bases", bases, Covariances, Covariances.of_state)
        second = summed(
            "eigenvalues", values, lambda: Eigenvalues(first.bases()), Eigenvalues.of_state
        )
    return second.ekfac()


def _summed(
    scorer: Scorer,
    model: nn.Module,
    name: str,
    epochs: Sequence[int],
    begin: Callable[[], AnySums],
    of_state: Callable[[Mapping[str, Tensor]], AnySums],
    folder: Path,
    advance: Callable[[int], None],
) -> AnySums:
    """One round, epoch by epoch; what was summed is saved after each."""
    run, batch, device = scorer.run, scorer.rows(model), next(model.parameters()).device
    saved = [folder / f"{name}-{number}.safetensors" for number in range(len(epochs))]
    finished = [number for number, file in enumerate(saved) if file.is_file()]
    sums = of_state(_read(saved[finished[-1]], device)) if finished else begin()
    for number, epoch in enumerate(epochs):
        if finished and number <= finished[-1]:
            advance(run.size)
            continue
        for shown, noise in curvature_events(run, [epoch], batch, first=name == "bases"):
            observe(scorer, model, shown, noise, sums)
            advance(shown.size)
        folder.mkdir(parents=True, exist_ok=True)
        with write_whole(saved[number]) as temporary:
            save_file(sums.state(), temporary)
        if number:
            saved[number - 1].unlink(missing_ok=True)
    return sums


def _beside(path: Path) -> Path:
    """Folder of unfinished work."""
    return path.with_suffix(".parts")


def _read(path: Path, device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in read_tensors(path).items()}
