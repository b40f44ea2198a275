"""How much each sample counts in the loss of a training."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retrac.data.dataset import ImageDataset
from retrac.errors import RetracError
from retrac.training.config import MeanOver


@dataclass(frozen=True, eq=False)
class SampleWeights:
    """Weights of all samples: a step minimises `Σ_i w_i ℓ_i / D` over its batch.

    Attributes:
        values: float32 `[N]`, w; 0 leaves a sample out.
        mean_over: D. batch: the samples of the batch, whatever they weigh, so that those that stay
            count as they did; weights: the sum of the batch's weights, as if the others had never
            been there.
    """

    values: np.ndarray
    mean_over: MeanOver = "batch"

    @staticmethod
    def ones(size: int) -> "SampleWeights":
        """As every training has them."""
        return SampleWeights(np.ones(size, np.float32))

    def of(self, indices: np.ndarray) -> Tensor:
        """Those of some samples, `[B]`."""
        return torch.from_numpy(self.values[indices])

    def share(self, batch: np.ndarray) -> float:
        """1/D of a batch; 0 where nothing of it counts."""
        if self.mean_over == "batch":
            return 1 / len(batch)
        total = float(self.values[batch].sum(dtype=float))
        return 1 / total if total else 0.0


def read_weights(path: Path, dataset: ImageDataset) -> np.ndarray:
    """Weights `[N]` from a CSV file with columns `id` and `weight`; samples not named weigh 1.

    Raises:
        RetracError: it cannot be read, names no sample, one twice or what is not there, or a weight
            is no number from 0 on.
    """
    places = {name: place for place, name in enumerate(dataset.ids)}
    values, named = np.ones(len(dataset)), set[str]()
    try:
        with path.expanduser().open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                values[places[row["id"]]] = float(row["weight"])
                if row["id"] in named:
                    raise RetracError(f"{path} names {row['id']!r} twice: leave one out")
                named.add(row["id"])
    except KeyError as error:
        raise RetracError(
            f"{path}: neither a column nor a sample is called {error}; it must have the columns id "
            f"and weight, with ids such as {dataset.ids[0]!r}"
        ) from error
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RetracError(f"{path} cannot be read as weights of samples ({error})") from error
    if not named:
        raise RetracError(f"{path} names no samples: it must have the columns id and weight")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise RetracError(f"{path}: weights must be numbers from 0 on")
    return values
