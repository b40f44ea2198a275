"""Which events stand before each checkpoint of a model that was trained elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLED = "sampled, not those of training: scores are expectations over events, not a replay"
REPLAYED = "those of the training, drawn by a ledger"


@dataclass(frozen=True)
class Visits:
    """The events of a ledger that training asked, or sampled ones, others for every checkpoint.

    Attributes:
        epochs: whole epochs before each of K checkpoints; empty where events are sampled.
        sampled: how many are, then, for each sample and checkpoint.
        checkpoints: K.
    """

    epochs: tuple[int, ...]
    sampled: int
    checkpoints: int

    @property
    def ends(self) -> tuple[int, ...]:
        """How many events of each sample stand before each checkpoint, `[K]`."""
        return self.epochs or tuple(self.sampled * (place + 1) for place in range(self.checkpoints))

    def weights(self, epochs: Sequence[int], samples: int) -> np.ndarray:
        """All count alike, `[len(epochs), samples]`: each 1, or where they are sampled all of a
        checkpoint 1."""
        return np.full((len(epochs), samples), 1.0 if self.epochs else 1 / self.sampled)

    @property
    def told(self) -> str:
        """What a reader has to know of them."""
        return REPLAYED if self.epochs else SAMPLED
