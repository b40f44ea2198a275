"""The same training without some of its samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrac.data.dataset import ImageDataset
from retrac.training.config import TrainConfig
from retrac.training.ledger import Ledger
from retrac.training.loop import Training, first_weights, make_accelerator, refuse_unfit_training
from retrac.training.recording import NoRecording
from retrac.training.resume import begin
from retrac.training.trained import TrainedRun


@dataclass(frozen=True)
class Thinned(Ledger):
    """A ledger whose batches lack some samples, and which changes nothing else.

    A training set of its own would number the samples anew, and so give every one of them other
    events and another order. Here those that stay keep their timesteps, noises and flips, their
    batches and their steps; only the batches are smaller.

    Args:
        removed: indices of the samples.
    """

    removed: tuple[int, ...] = ()

    def batches(self, epoch: int, batch_size: int) -> list[np.ndarray]:
        """As many as before; where nothing is left of one, the epoch's steps share alike."""
        left = [
            batch[~np.isin(batch, self.removed)] for batch in super().batches(epoch, batch_size)
        ]
        return left if all(map(len, left)) else np.array_split(np.concatenate(left), len(left))


def train_without(
    config: TrainConfig, output: Path, dataset: ImageDataset, removed: Sequence[int]
) -> TrainedRun:
    """Train on all samples but some, or go on with it.

    With nothing removed, the weights are those of `train`. The folder does not tell what was
    removed, so that its samples cannot be attributed to: it is to be measured and deleted.

    Args:
        config: everything else that decides the weights.
        output: the run folder.
        dataset: the whole training set.
        removed: indices in it; at least one sample must be left for each step of an epoch.

    Raises:
        RetracError: as `train`.
        Interrupted: stopped by a signal; the state is saved.
    """
    accelerator = make_accelerator(config)
    steps = config.objective.timesteps
    ledger = Thinned(config.seed, len(dataset), steps, tuple(int(index) for index in removed))
    model = first_weights(config, dataset.shape)
    refuse_unfit_training(output, config, None, dataset, ledger)
    begin(output, config, dataset, ledger, sum(p.numel() for p in model.parameters()))
    Training(config, output, accelerator, dataset, ledger, model, NoRecording()).run()
    return TrainedRun.open(output)
