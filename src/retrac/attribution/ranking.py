"""Samples in the order of their scores."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Ranked:
    """One sample in a list.

    `timesteps` are those of the replayed events, from the first checkpoint to the last.
    """

    rank: int
    sample: int
    id: str
    label: str
    score: float
    timesteps: tuple[int, ...]


def ranked(data: xr.Dataset, scores: np.ndarray, rows: Iterable[int]) -> list[Ranked]:
    """List samples with what is known of them.

    Args:
        data: has `sample_id`, `sample_label`, `train_timestep[checkpoint, sample, visit]`, and
            `sample`, the indices in the training set, if it is not the whole of it.
        scores: of the samples in `data`, `[N]`.
        rows: positions in `data`, best first.
    """
    timesteps = data["train_timestep"].values
    indices = data["sample"].values
    return [
        Ranked(
            rank=rank,
            sample=int(indices[row]),
            id=str(data["sample_id"].values[row]),
            label=str(data["sample_label"].values[row]),
            score=float(scores[row]),
            timesteps=tuple(int(t) for t in timesteps[:, row].ravel() if t >= 0),
        )
        for rank, row in enumerate(rows, start=1)
    ]


def evenly_spread(size: int, count: int) -> list[int]:
    """`count` indices of `size`, or all of them, from the first on."""
    return [int(index) for index in np.linspace(0, size, min(count, size), endpoint=False)]
