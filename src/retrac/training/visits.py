"""Which events stand before each checkpoint of a model that was trained elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrac.errors import RetracError

SAMPLED = "sampled, not those of training: scores are expectations over events, not a replay"
REPLAYED = "those of the training, drawn by a ledger"


@dataclass(frozen=True)
class Visits:
    """The events of a ledger that training asked, or sampled ones, others for every checkpoint.

    Attributes:
        epochs: whole epochs before each of K checkpoints; empty where events are sampled.
        sampled: how many are, then, for each sample and checkpoint.
        rates: what an event before each of K checkpoints counts: the learning rate, in any unit.
    """

    epochs: tuple[int, ...]
    sampled: int
    rates: tuple[float, ...]

    @staticmethod
    def of(
        epochs: Sequence[int], sampled: int, rates: Sequence[float], checkpoints: int
    ) -> "Visits":
        """Those of K checkpoints; without rates all are 1.

        Raises:
            RetracError: epochs that do not rise from 1, rates that are not above 0, or another
                number of either.
        """
        for name, given in (("epochs", epochs), ("learning rates", rates)):
            if given and len(given) != checkpoints:
                raise RetracError(
                    f"{name} must be as many as weights, {checkpoints}, not {len(given)}"
                )
        if any(b <= a for a, b in zip((0, *epochs), epochs, strict=False)):
            raise RetracError(f"epochs must rise from at least 1, not {tuple(epochs)}")
        if not all(0 < rate < math.inf for rate in rates):
            raise RetracError(f"learning rates must be above 0, not {tuple(rates)}")
        return Visits(tuple(epochs), sampled, tuple(rates) or (1.0,) * checkpoints)

    @property
    def ends(self) -> tuple[int, ...]:
        """How many events of each sample stand before each checkpoint, `[K]`."""
        return self.epochs or tuple(self.sampled * (place + 1) for place in range(len(self.rates)))

    def weights(self, epochs: Sequence[int], samples: int) -> np.ndarray:
        """What they count, `[len(epochs), samples]`: of all samples alike each the rate, or where
        they are sampled all of a checkpoint together."""
        places = np.searchsorted(self.ends, epochs, "right")
        each = np.array(self.rates)[places] / (1 if self.epochs else self.sampled)
        return np.repeat(each[:, None], samples, 1)

    @property
    def told(self) -> str:
        """What a reader has to know of them."""
        return REPLAYED if self.epochs else SAMPLED
