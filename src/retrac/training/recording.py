"""Recording while training: every visit's gradient, sketched at the very weights it met.

The recorder looks on: it attaches the tape to the live step and changes no weight by a single bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from retrac.errors import RetracError
from retrac.gradients.tape import live_tape
from retrac.gradients.weights import Weight
from retrac.store.bins import TIMESTEPS, BinRows, StoredBins
from retrac.store.index import Index
from retrac.store.intervals import INTERVALS, IntervalRows, StoredInterval
from retrac.training.ledger import Ledger
from retrac.training.state import read_tensors

RECORDED = "recorded"
"""Folder of a run's recording."""
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
    """Adds up sketches by sample until a checkpoint comes: under each weight, and by bin of
    timesteps.

    Args:
        index: where they go then.
        network: the network that is trained.
        ledger: of the run.
        accelerator: of the loop.
        weights: of gradients, those of the index.
    """

    def __init__(
        self,
        index: Index,
        network: nn.Module,
        ledger: Ledger,
        accelerator: Accelerator,
        weights: Sequence[Weight],
    ) -> None:
        self._intervals = index.features[INTERVALS]
        self._by_bin = index.features[TIMESTEPS]
        self._network = network
        self._ledger = ledger
        self._accelerator = accelerator
        self._weights = {weight.__name__: weight for weight in weights}
        samples, bins = ledger.size, int(self._by_bin.config["bins"])
        size = self._intervals.layout.size
        self._projection = self._intervals.layout.projection
        self._sums = {name: torch.zeros(samples, size) for name in self._weights}
        self._bin_sums = torch.zeros(samples, bins, size)
        self._counts = torch.zeros(samples, bins, dtype=torch.int64)
        self._norms: dict[int, Tensor] = {}
        self._timesteps: dict[int, Tensor] = {}

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
        rows = rows.cpu().div_(factor)
        norms = torch.linalg.vector_norm(rows, dim=1)
        if not torch.isfinite(norms).all():
            raise RetracError(
                f"a gradient is not finite in epoch {epoch + 1}: lower --learning-rate, or set "
                "--max-grad-norm; earlier checkpoints are kept"
            )
        samples = torch.from_numpy(batch)
        by_epoch = self._norms.setdefault(epoch, torch.full((self._ledger.size,), torch.nan))
        by_epoch[samples] = norms
        bins = self._counts.shape[1]
        which = self._timesteps_in(epoch)[samples] * bins // self._ledger.timesteps
        self._counts[samples, which] += 1
        self._bin_sums.flatten(0, 1).index_add_(0, samples * bins + which, rows)
        for name, weight in self._weights.items():
            counted = weight(norms) * rate / len(batch)
            self._sums[name].index_add_(0, samples, rows * counted[:, None])

    def end_interval(self, first: int, epoch: int) -> None:
        """Write the sums to the index, and begin anew."""
        if not self._accelerator.is_main_process:
            return
        self._write_interval(range(first, epoch), epoch)
        self._write_bins(epoch)
        for sums in (*self._sums.values(), self._bin_sums, self._counts):
            sums.zero_()
        self._norms.clear()
        self._timesteps.clear()

    def _write_interval(self, epochs: range, epoch: int) -> None:
        missing = torch.full((self._ledger.size,), torch.nan)
        norms = torch.stack([self._norms.get(number, missing) for number in epochs], 1).numpy()
        timesteps = torch.stack([self._timesteps_in(number) for number in epochs], 1).numpy()
        self._intervals.remove(epoch)  # of a training that was stopped just before its checkpoint
        stored = StoredInterval(self._intervals, epoch)
        stored.begin(self._ledger.size, len(epochs))
        for chunk in stored.chunks:
            sums = {name: sums[chunk].numpy() for name, sums in self._sums.items()}
            stored.write(chunk, IntervalRows(sums, norms[chunk], timesteps[chunk]))

    def _write_bins(self, epoch: int) -> None:
        self._by_bin.remove(epoch)
        stored = StoredBins(self._by_bin, epoch)
        stored.begin(self._ledger.size)
        for chunk in stored.table.chunks:
            sums, counts = self._bin_sums[chunk], self._counts[chunk]
            stored.write(chunk, BinRows(sums[:, :, None, None].numpy(), counts[..., None].numpy()))

    def save(self, folder: Path) -> None:
        """Add what is summed up to a rolling state."""
        tensors = {
            **{f"sums {name}": sums for name, sums in self._sums.items()},
            **{f"norms {epoch}": norms for epoch, norms in self._norms.items()},
            "bins": self._bin_sums,
            "counts": self._counts,
        }
        save_file(tensors, folder / TENSORS)

    def load(self, folder: Path) -> None:
        """Take it up from a rolling state.

        Raises:
            RetracError: it is absent or damaged.
        """
        tensors = read_tensors(folder / TENSORS)
        self._sums = {name: tensors.pop(f"sums {name}") for name in self._weights}
        self._bin_sums, self._counts = tensors.pop("bins"), tensors.pop("counts")
        self._norms = {int(name.split()[1]): norms for name, norms in tensors.items()}

    def _timesteps_in(self, epoch: int) -> Tensor:
        """Of all samples' events, `[N]`."""
        if epoch not in self._timesteps:
            events = self._ledger.events(epoch, range(self._ledger.size), (0,))
            self._timesteps[epoch] = events.timesteps
        return self._timesteps[epoch]

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
