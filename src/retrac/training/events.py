"""Events that somebody recorded, in arrays on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retrac.errors import RetracError

CHUNK = 2**24
"""Bytes of noise that are copied at one time."""


@dataclass(frozen=True, eq=False)
class RecordedEvents:
    """The events of one epoch, at most one of each sample.

    Attributes:
        samples: int64 `[E]`, rising.
        timesteps: int64 `[E]`.
        noise: float32 `[E, C, H, W]`, on disk; None where it was not kept.
    """

    samples: np.ndarray
    timesteps: np.ndarray
    noise: np.ndarray | None

    @staticmethod
    def write(
        folder: Path, samples: np.ndarray, timesteps: np.ndarray, noise: Tensor | None
    ) -> None:
        """Write events, in any order, into a folder, with or without their noise.

        Raises:
            RetracError: noise that is not finite.
        """
        order = np.argsort(samples)
        np.save(folder / "samples.npy", samples[order])
        np.save(folder / "timesteps.npy", timesteps[order])
        if noise is None:
            return
        rows = max(1, CHUNK // (4 * noise[0].numel()))
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(noise.shape)}
        # Not by a memory map, in which a full disk ends the process.
        with (folder / "noise.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(order), rows):
                part = noise[torch.from_numpy(order[start : start + rows])].float()
                if not part.isfinite().all():
                    broken = order[start + int(part.isfinite().flatten(1).all(1).int().argmin())]
                    raise RetracError(f"the noise of sample {samples[broken]} is not finite")
                file.write(part.numpy().astype("<f4", copy=False).tobytes())

    @staticmethod
    def open(folder: Path) -> "RecordedEvents":
        """Open what `write` wrote; noise stays on disk.

        Raises:
            RetracError: absent or damaged.
        """
        noise = folder / "noise.npy"
        try:
            return RecordedEvents(
                np.load(folder / "samples.npy"),
                np.load(folder / "timesteps.npy"),
                np.load(noise, mmap_mode="r") if noise.exists() else None,
            )
        except (OSError, ValueError, EOFError) as error:
            raise RetracError(
                f"the events in {folder} cannot be read ({error}); they may be damaged"
            ) from error

    def has(self, samples: np.ndarray) -> np.ndarray:
        """Which samples have an event, bool `[S]`."""
        return np.isin(samples, self.samples)

    def of(self, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        """Timesteps `[S]` and noise `[S, C, H, W]` of samples that have an event.

        Raises:
            RetracError: noise was not kept.
        """
        if self.noise is None:
            raise RetracError("of these events the noise was not kept")
        places = np.searchsorted(self.samples, samples)
        return torch.from_numpy(self.timesteps[places]), torch.from_numpy(self.noise[places])
