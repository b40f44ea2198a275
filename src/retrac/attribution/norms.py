"""Gradient norms by timestep: the cause of the dominating norm effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retrac.attribution.config import ComputeConfig
from retrac.attribution.finite import refuse_not_finite
from retrac.attribution.memory import rows_within
from retrac.attribution.ranking import evenly_spread
from retrac.attribution.store import save_result
from retrac.diffusion.device import choose_device, placed
from retrac.diffusion.loss import Loss
from retrac.diffusion.shown import Shown
from retrac.errors import RetracError
from retrac.gradients import squared_norms
from retrac.progress import progress
from retrac.training.run import Checkpoint, Run, choose_checkpoints

KIND = "analysis of norms"


@dataclass(frozen=True, eq=False)
class Norms:
    """Norms ‖∇L(θ_k; x, t, ε)‖ over all parameters together, with the ε of training.

    Attributes:
        dataset:
            - `sample_norm[checkpoint, timestep]`: of one sample, over timesteps;
            - `sample_timestep[checkpoint]`, `sample_trained_norm[checkpoint]`: where it was
              trained in the last epoch before the checkpoint, and its norm there;
            - `train_norm`, `train_timestep[checkpoint, sample]`: of many samples, where they were
              trained in that epoch.
        config: the sample and the facts of the run.
    """

    dataset: xr.Dataset
    config: Mapping[str, Any]

    def save(self, path: str | Path) -> None:
        """Write the folder `path`, whole or not at all."""
        save_result(Path(path), KIND, self.dataset, self.config)


def norms(
    run: Run,
    sample: int = 0,
    *,
    timesteps: int = 100,
    samples: int = 2000,
    checkpoints: Sequence[int] = (),
    compute: ComputeConfig | None = None,
) -> Norms:
    """Measure one sample over timesteps, and many samples at their training timesteps.

    Args:
        run: a training run.
        sample: its index.
        timesteps: how many, evenly spaced.
        samples: at most so many, evenly spread over the training set.
        checkpoints: their epochs; all by default.
        compute: device and memory.

    Raises:
        RetracError: no such sample or checkpoint, or a gradient that is not finite.
    """
    dataset = run.dataset
    refuse_unfit(run, sample, timesteps, samples)
    chosen = choose_checkpoints(run, checkpoints)
    compute = compute or ComputeConfig()
    device = choose_device(compute.device)
    steps = run.timesteps
    spread = np.unique(np.linspace(min(1, steps - 1), steps - 1, timesteps).astype(int))
    many = np.array(evenly_spread(len(dataset), samples))
    one: dict[str, list[Any]] = {"curve": [], "timestep": [], "norm": []}
    trained: dict[str, list[np.ndarray]] = {"norm": [], "timestep": []}
    total = len(chosen) * (len(spread) + 1 + len(many))
    with progress("norms", total, "gradients") as advance:
        for checkpoint in chosen:
            measure = Measure(run, checkpoint, device, compute, advance)
            image, moment, noise = measure.inputs(np.array([sample]))
            along = torch.cat((torch.from_numpy(spread), moment))
            same = Shown(image.repeated(len(along)), along, noise.repeat_interleave(len(along), 0))
            found = measure(same, [dataset.ids[sample]])
            one["curve"].append(found[:-1])
            one["norm"].append(found[-1])
            one["timestep"].append(int(moment))
            for kept, values in zip(trained.values(), measure.trained(many), strict=True):
                kept.append(values)
    by_sample = ("checkpoint", "sample")
    return Norms(
        xr.Dataset(
            {
                "sample_norm": (("checkpoint", "timestep"), np.stack(one["curve"])),
                "sample_timestep": ("checkpoint", one["timestep"]),
                "sample_trained_norm": ("checkpoint", np.array(one["norm"])),
                "train_norm": (by_sample, np.stack(trained["norm"])),
                "train_timestep": (by_sample, np.stack(trained["timestep"])),
            },
            coords={
                "checkpoint": [checkpoint.epoch for checkpoint in chosen],
                "timestep": spread,
                "sample": many,
            },
        ),
        {"sample": sample, "sample id": dataset.ids[sample], "run": run.facts},
    )


def refuse_unfit(run: Run, sample: int, timesteps: int, samples: int) -> None:
    """Refuse what cannot be measured.

    Raises:
        RetracError: no such sample, or counts below 1.
    """
    if not 0 <= sample < len(run.dataset):
        raise RetracError(
            f"there is no sample {sample}: the training set has {len(run.dataset)}, from 0"
        )
    if timesteps < 1 or samples < 1:
        raise RetracError("--timesteps and --samples must be at least 1")


class Measure:
    """Norms at one checkpoint.

    Args:
        run: a training run.
        checkpoint: its weights.
        device: where to compute.
        compute: how much memory may be used.
        advance: told how many gradients each pass has done.

    Attributes:
        rows: images in a pass.
    """

    def __init__(
        self,
        run: Run,
        checkpoint: Checkpoint,
        device: torch.device,
        compute: ComputeConfig,
        advance: Any,
    ) -> None:
        self._run = run
        self._checkpoint = checkpoint
        self._device = device
        self._advance = advance
        run.encode_on(device)
        model = placed(checkpoint.load(run.shape), device, compute.precision)
        self._model: nn.Module = model
        self._objective: Loss = run.objective
        self.rows = rows_within(model, run.objective, run.example, compute)

    def inputs(self, indices: np.ndarray) -> Shown:
        """Images, timesteps and noise of the last epoch before the checkpoint."""
        run, epoch = self._run, self._checkpoint.epoch - 1
        return run.shown(epoch, indices)

    def trained(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Norms and timesteps `[S]` of samples in that epoch; a pass of them is read at a time."""
        norms, timesteps = [], []
        for start in range(0, len(samples), self.rows):
            some = samples[start : start + self.rows]
            inputs = self.inputs(some)
            norms.append(self(inputs, [self._run.dataset.ids[index] for index in some]))
            timesteps.append(inputs.timesteps.numpy())
        return np.concatenate(norms), np.concatenate(timesteps)

    def __call__(self, shown: Shown, ids: Sequence[str]) -> np.ndarray:
        """Norms `[B]`, float32."""
        found = []
        for part in shown.split(self.rows):
            given = part.on(self._device)
            found.append(
                squared_norms(
                    self._model,
                    lambda given=given: self._objective.losses(self._model, *given),  # type: ignore[misc]
                )
                .sqrt()
                .cpu()
                .numpy()
            )
            self._advance(part.size, note=f"epoch {self._checkpoint.epoch}")
        every = np.concatenate(found)
        refuse_not_finite(
            torch.from_numpy(np.isfinite(every)),
            lambda row: f"sample {ids[min(row, len(ids) - 1)]!r} at {self._checkpoint.path.name}",
        )
        return every
