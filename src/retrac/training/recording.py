"""Recording while training: every visit's gradient, sketched at the very weights it met.

The recorder looks on: it attaches the tape to the live step and changes no weight by a single bit.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import UNet2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from retrac.data.dataset import ImageDataset
from retrac.diffusion.loss import Objective
from retrac.errors import RetracError
from retrac.gradients.allocation import Sides, measure_sides
from retrac.gradients.tape import live_tape
from retrac.gradients.weights import WEIGHTS
from retrac.training.config import TrainConfig
from retrac.training.index import CHUNK, Index, IndexedCheckpoint, Rows, laid_out, pilot
from retrac.training.inputs import training_inputs
from retrac.training.ledger import Ledger
from retrac.training.optimiser import learning_rate, make_optimizer
from retrac.training.resume import latest_state
from retrac.training.state import read_tensors
from retrac.training.trained import new_record, training_identity

RECORDED = "recorded"
"""Folder of a run's recording."""
LOOK_AHEAD = (10, 100)
"""The least and the most steps that a copy of the network takes, to see where gradients will be:
before the first step most layers have none, since networks begin with zeros in their last
convolutions."""
LOOKED = 50
"""Of so many steps one is looked ahead."""
TENSORS = "recording.safetensors"


class Forward(Protocol):
    """Runs forward passes under watch."""

    def record(self, per_sample_losses: Any) -> Tensor:
        """Run one."""
        ...

    def flush(self) -> None:
        """End the backward pass that followed it."""
        ...


class Recording(Protocol):
    """What the training loop tells its recorder."""

    def watch(self) -> AbstractContextManager[Forward]:
        """Attach to a step."""
        ...

    def visit(self, epoch: int, batch: np.ndarray, rate: float, factor: float) -> None:
        """Take over the step that was watched.

        Args:
            epoch: from 0.
            batch: indices of the samples, of all processes.
            rate: learning rate; 0 where the optimiser skipped the step.
            factor: by which a sample's loss was multiplied before it was differentiated.
        """
        ...

    def end_interval(self, first: int, epoch: int) -> None:
        """A checkpoint after `epoch` epochs stands for those from `first` on."""
        ...

    def save(self, folder: Path) -> None:
        """Add what is not in the index yet to a rolling state."""
        ...

    def load(self, folder: Path) -> None:
        """Take it up again."""
        ...


class _Unwatched:
    def record(self, per_sample_losses: Any) -> Tensor:
        losses: Tensor = per_sample_losses()
        return losses

    def flush(self) -> None:
        pass


class NoRecording:
    """Looks away."""

    def watch(self) -> AbstractContextManager[Forward]:
        """Attach to nothing."""
        return nullcontext(_Unwatched())

    def visit(self, epoch: int, batch: np.ndarray, rate: float, factor: float) -> None:
        """Take nothing over."""

    def end_interval(self, first: int, epoch: int) -> None:
        """Write nothing."""

    def save(self, folder: Path) -> None:
        """Add nothing."""

    def load(self, folder: Path) -> None:
        """Take nothing up."""


class Recorder:
    """Sums up sketches by sample until a checkpoint comes.

    Args:
        index: where they go then.
        network: the network that is trained.
        ledger: of the run.
        accelerator: of the loop.
    """

    def __init__(
        self, index: Index, network: nn.Module, ledger: Ledger, accelerator: Accelerator
    ) -> None:
        self._index = index
        self._network = network
        self._ledger = ledger
        self._accelerator = accelerator
        self._projection = index.projection
        self._weights = [WEIGHTS[name] for name in index.weights]
        shape = (len(self._weights), ledger.size, int(index.config["size"]))
        self._sums = torch.zeros(shape)
        self._norms: dict[int, Tensor] = {}

    @contextmanager
    def watch(self) -> Iterator[Forward]:
        """Attach the tape to a step."""
        (self._collected,) = self._projection.collect(1)
        with live_tape(self._network, self._collected, self._projection.sizes) as tape:
            yield tape

    def visit(self, epoch: int, batch: np.ndarray, rate: float, factor: float) -> None:
        """Add a step's sketches to their samples.

        Raises:
            RetracError: one of them is not finite.
        """
        rows, _ = self._collected.rows(torch.empty(0))  # of losses that no part is missing for
        rows = self._gathered(rows, batch)
        if not self._accelerator.is_main_process or rate == 0:
            return
        rows = rows / factor
        norms = torch.linalg.vector_norm(rows, dim=1)
        if not torch.isfinite(norms).all():
            raise RetracError(
                f"a gradient is not finite in epoch {epoch + 1}: lower --learning-rate, or set "
                "--max-grad-norm; earlier checkpoints are kept"
            )
        counted = torch.stack([weight(norms) for weight in self._weights]) * rate / len(batch)
        where = torch.from_numpy(batch)
        self._sums[:, where] += (counted[..., None] * rows).cpu()
        by_epoch = self._norms.setdefault(epoch, torch.full((self._ledger.size,), torch.nan))
        by_epoch[where] = norms.cpu()

    def end_interval(self, first: int, epoch: int) -> None:
        """Write the sums to the index, and begin anew."""
        if not self._accelerator.is_main_process:
            return
        epochs = range(first, epoch)
        missing = torch.full((self._ledger.size,), torch.nan)
        norms = torch.stack([self._norms.get(number, missing) for number in epochs], 1)
        timesteps = np.stack([self._timesteps(number) for number in epochs], 1)
        _, samples, size = self._sums.shape
        part = IndexedCheckpoint.create(
            self._index.checkpoint(epoch).path,
            self._index.weights,
            samples,
            size,
            len(epochs),
            CHUNK,
        )
        for chunk in part.chunks:
            rows = Rows(self._sums[:, chunk].numpy(), norms[chunk].numpy(), timesteps[chunk])
            part.write(chunk, rows)
        self._sums.zero_()
        self._norms.clear()

    def save(self, folder: Path) -> None:
        """Add sums and norms to a rolling state."""
        norms = {f"norms {epoch}": values for epoch, values in self._norms.items()}
        save_file({"sums": self._sums, **norms}, folder / TENSORS)

    def load(self, folder: Path) -> None:
        """Take up sums and norms from a rolling state.

        Raises:
            RetracError: they are absent or damaged.
        """
        tensors = read_tensors(folder / TENSORS)
        self._sums = tensors.pop("sums")
        self._norms = {int(name.split()[1]): values for name, values in tensors.items()}

    def _timesteps(self, epoch: int) -> np.ndarray:
        return self._ledger.events(epoch, range(self._ledger.size), (1,)).timesteps.numpy()

    def _gathered(self, rows: Tensor, batch: np.ndarray) -> Tensor:
        """All processes' rows, in the order of the batch."""
        shares = [len(part) for part in np.array_split(batch, self._accelerator.num_processes)]
        if len(shares) == 1:
            return rows
        padded = torch.zeros(max(shares), rows.shape[1], device=rows.device)
        mine = shares[self._accelerator.process_index]
        padded[:mine] = rows[:mine]
        together = self._accelerator.gather(padded).split(max(shares))
        return torch.cat([part[:share] for part, share in zip(together, shares, strict=True)])


def found_recording(
    output: Path,
    config: TrainConfig,
    size: int | None,
    dataset: ImageDataset,
    ledger: Ledger,
) -> Index | None:
    """The recording that a training goes on with; None if it begins one, or has none.

    Args:
        output: the run folder.
        config: of the training.
        size: about how many numbers a sketch has; None for a training that is not recorded.
        dataset: the training set.
        ledger: of the run.

    Raises:
        RetracError: the run has a recording of another training or of other settings, was begun
            without one, or with one that is not asked for.
    """
    path = output / RECORDED
    if size is None:
        if path.exists():
            raise RetracError(f"{output} is being recorded: give --record to go on with it")
        return None
    found = Index.found(path, _settings(config, size, dataset, ledger))
    if found is None and latest_state(output) is not None:
        raise RetracError(
            f"{output} was begun without --record: what was not recorded from the start cannot be "
            "made up for; train into another --output, or use `retrac index`"
        )
    return found


def begin_recording(
    output: Path,
    config: TrainConfig,
    size: int,
    network: UNet2DModel,
    dataset: ImageDataset,
    ledger: Ledger,
    device: torch.device,
) -> None:
    """Begin a run's recording, unless there is one to go on with.

    Args:
        output, config, size, dataset, ledger: as for `found_recording`.
        network: with its first weights; not changed.
        device: where to look ahead.

    Raises:
        RetracError: as `found_recording`.
    """
    if found_recording(output, config, size, dataset, ledger) is None:
        ahead = steps_ahead(config, len(dataset))
        laid = lay_out(config, size, network, dataset, ledger, device, ahead)
        settings = _settings(config, size, dataset, ledger)
        Index.planned(output / RECORDED, {**settings, **laid}).save()


def steps_ahead(config: TrainConfig, samples: int) -> int:
    """Steps to look ahead in a training on so many samples."""
    least, most = LOOK_AHEAD
    steps = config.epochs * math.ceil(samples / config.batch_size)
    return max(least, min(most, steps // LOOKED))


def lay_out(
    config: TrainConfig,
    size: int,
    network: UNet2DModel,
    dataset: ImageDataset,
    ledger: Ledger,
    device: torch.device,
    look_ahead: int,
) -> dict[str, Any]:
    """Lay sketches out by where gradients will be after some steps; as `laid_out` says it."""
    sides = _sides_after_look_ahead(config, network, dataset, ledger, device, look_ahead)
    return laid_out(sides, size)


def _settings(
    config: TrainConfig, size: int, dataset: ImageDataset, ledger: Ledger
) -> dict[str, Any]:
    return {
        "kind": "recorded",
        "trained": training_identity(new_record(config, dataset, ledger)),
        "weights": list(WEIGHTS),
        "replay": "all",
        "parameters": ".*",
        "seed": config.seed,
        "asked": size,
    }


def _sides_after_look_ahead(
    config: TrainConfig,
    network: UNet2DModel,
    dataset: ImageDataset,
    ledger: Ledger,
    device: torch.device,
    steps: int,
) -> dict[str, Sides]:
    ahead = copy.deepcopy(network).to(device)
    objective, optimisation = Objective.of(config.objective), config.optimisation
    optimizer = make_optimizer(optimisation, ahead)

    def losses(indices: np.ndarray) -> Tensor:
        shown = training_inputs(dataset, ledger, 0, indices, config.flip)
        return objective.losses(ahead, *shown.on(device))

    batches = ledger.batches(0, config.batch_size)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(optimisation, step)
        losses(batches[step % len(batches)]).mean().backward()
        if optimisation.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(ahead.parameters(), optimisation.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    few, rows = pilot(ledger.size), config.batch_size
    parts = [few[start : start + rows] for start in range(0, len(few), rows)]
    sides = measure_sides(ahead, *(partial(losses, part) for part in parts))
    if all(math.isfinite(side.share) for side in sides.values()):
        return sides
    return {name: replace(side, share=1 / len(sides)) for name, side in sides.items()}
