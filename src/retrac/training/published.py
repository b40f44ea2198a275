"""Checkpoint files of the paper's published code, read as what nobody vouches for."""

import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrac.errors import RetracError

NAME = re.compile(r"ckpt_(\d+)_\d+\.pth")
"""The epoch, and the last step in it."""
ENTRIES = ("model_state", "timesteps", "noise", "batch")


@dataclass(frozen=True, eq=False)
class PublishedCheckpoint:
    """The weights after an epoch, and what was random in that epoch.

    Attributes:
        file: from which it was read.
        weights: by name, of any floating type.
        samples: int64 `[E]`, the sample of each event by its place in the dataset.
        timesteps: int64 `[E]`.
        noise: `[E, C, H, W]`; it stays in the file until it is looked at.
        batch_size: B.
    """

    file: Path
    weights: dict[str, Tensor]
    samples: np.ndarray
    timesteps: np.ndarray
    noise: Tensor
    batch_size: int

    @staticmethod
    def read(file: Path) -> "PublishedCheckpoint":
        """Read `ckpt_{epoch}_{step}.pth`; nothing in it is run.

        Raises:
            RetracError: damaged, something in it is neither a tensor nor a list, or they are not
                those that the published code writes.
        """
        content = _content(file)
        if missing := [name for name in ENTRIES if name not in content]:
            raise _unlike(file, f"it has no {missing[0]!r}")
        for name, value in content.items():
            if name != "model_state" and not isinstance(value, (Tensor, list)):
                raise _unlike(
                    file, f"its {name!r} is {_kind(value)}, and neither a tensor nor a list"
                )
        timesteps, noise = content["timesteps"], content["noise"]
        if not _dense(timesteps) or timesteps.dtype != torch.int64 or timesteps.dim() != 2:
            raise _unlike(
                file, f"its 'timesteps' are {_kind(timesteps)}, not int64 [batches, batch size]"
            )
        if not timesteps.numel():
            raise _unlike(file, "it has no events")
        count, size = timesteps.shape
        if not _floats(noise) or noise.dim() != 5 or noise.shape[:2] != timesteps.shape:
            raise _unlike(
                file,
                f"its 'noise' is {_kind(noise)}, not numbers [{count}, {size}, channels, height, "
                "width], one for each of its timesteps",
            )
        return PublishedCheckpoint(
            file,
            _weights(file, content["model_state"]),
            _batches(file, content["batch"], count, size),
            timesteps.flatten().numpy(),
            noise.flatten(0, 1),
            size,
        )

    def refuse_unfit(self, samples: int, shape: tuple[int, int, int], timesteps: int) -> None:
        """Refuse events that no training on a dataset can have had.

        Args:
            samples: N, of the dataset.
            shape: (C, H, W) of its images.
            timesteps: T.

        Raises:
            RetracError: samples that are not there or that an epoch visits twice, timesteps out of
                range, or noise of another shape.
        """
        name = self.file.name
        outside = self.samples[(self.samples < 0) | (self.samples >= samples)]
        if len(outside):
            raise RetracError(
                f"{name} has events of {len(np.unique(outside))} samples, such as {outside[0]}, "
                f"that are not in the dataset, which has {samples}: give the one it was trained on"
            )
        indices, visits = np.unique(self.samples, return_counts=True)
        if (visits > 1).any():
            raise RetracError(
                f"{name} visits {(visits > 1).sum()} samples more than once in its epoch, such as "
                f"{indices[visits > 1][0]}, which the published code never does"
            )
        wrong = self.timesteps[(self.timesteps < 0) | (self.timesteps >= timesteps)]
        if len(wrong):
            raise RetracError(
                f"{name} has the timestep {wrong[0]}, which is not from 0 to {timesteps - 1}: give "
                "the right --timesteps"
            )
        if (there := tuple(self.noise.shape[1:])) != shape:
            raise RetracError(
                f"the noise in {name} is {_sides(there)}, but the images are {_sides(shape)}: give "
                "another --resolution, or the dataset that it was trained on"
            )


def published_files(folder: Path) -> dict[int, Path]:
    """The checkpoint files in a folder by epoch.

    Raises:
        RetracError: there are none, or two of one epoch.
    """
    if not folder.is_dir():
        raise RetracError(f"{folder} is not a folder: give the one with the ckpt_*.pth files")
    found: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if not (match := NAME.fullmatch(file.name)):
            continue
        epoch = int(match[1])
        if epoch in found:
            raise RetracError(
                f"{found[epoch].name} and {file.name} in {folder} are both of epoch {epoch}, so "
                "they are not of one training: keep the one that belongs to the others"
            )
        found[epoch] = file
    if not found:
        raise RetracError(f"{folder} holds no ckpt_EPOCH_STEP.pth")
    if 0 in found:
        raise RetracError(f"{found[0].name} is of epoch 0: the published code counts from 1")
    return dict(sorted(found.items()))


def _content(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except pickle.UnpicklingError as error:
        if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise RetracError(
                f"{file} holds {match[1]}, which is neither a tensor nor a list and could run "
                "code: it is not read"
            ) from error
        raise _damaged(file, error) from error
    except Exception as error:  # torch has many, by what is damaged
        raise _damaged(file, error) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise _unlike(file, f"it holds {_kind(content)}")
    return content


def _weights(file: Path, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise _unlike(file, f"its 'model_state' is {_kind(state)}, not tensors by name")
    for name, value in state.items():
        if not _floats(value):
            raise _unlike(file, f"its weights {name!r} are {_kind(value)}, not numbers")
        if not value.float().isfinite().all():
            raise RetracError(f"{file.name} cannot be used: its weights {name!r} are not finite")
    return {name: value.detach() for name, value in state.items()}


def _batches(file: Path, batches: Any, count: int, size: int) -> np.ndarray:
    whole = (
        isinstance(batches, list)
        and len(batches) == count
        and all(isinstance(batch, list) and len(batch) == size for batch in batches)
        and all(type(index) is int for batch in batches for index in batch)
    )
    if not whole:
        raise _unlike(
            file,
            f"its 'batch' is not {count} lists of {size} sample indices, one for each of its "
            "timesteps",
        )
    try:
        return np.array(batches, np.int64).flatten()
    except OverflowError as error:
        raise _unlike(file, "its 'batch' has indices beyond all measure") from error


def _dense(value: Any) -> bool:
    """Whether it is an ordinary tensor, whose numbers are all there."""
    return (
        isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    )


def _floats(value: Any) -> bool:
    return _dense(value) and value.is_floating_point()


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"of type {type(value).__name__}"


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _unlike(file: Path, reason: str) -> RetracError:
    return RetracError(f"{file} is not as the published code writes it: {reason}")


def _damaged(file: Path, error: Exception) -> RetracError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    return RetracError(f"{file} cannot be read ({reason}); it may be damaged")
