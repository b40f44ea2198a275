"""What a person looks at while training: a sample grid and the loss curve of each saved epoch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from matplotlib.figure import Figure

from retrac.data.grid import grid
from retrac.diffusion.sampling import Making, sample
from retrac.diffusion.schedule import make_scheduler
from retrac.files import write_whole
from retrac.training.config import TrainConfig
from retrac.training.steps import Step

SAMPLES = "samples"


def write_snapshot(
    output: Path,
    epoch: int,
    config: TrainConfig,
    model: UNet2DModel,
    shape: tuple[int, int, int],
    ema: EMAModel | None,
    steps: Sequence[Step],
) -> None:
    """Write `samples/epoch-0010.png`, from the same noise every time, and `loss.png`."""
    loss_curve(steps, output / "loss.png")
    if config.sample_count == 0:
        return
    parameters = list(model.parameters())
    if ema is not None:
        ema.store(parameters)
        ema.copy_to(parameters)
    made = sample(
        model,
        Making(make_scheduler(config.objective), shape),
        range(config.sample_count),
        seed=config.seed,
        steps=config.sample_steps,
        shown=False,
    )
    if ema is not None:
        ema.restore(parameters)
    with write_whole(output / SAMPLES / f"epoch-{epoch:04d}.png") as temporary:
        grid(made.images).save(temporary, format="png")


def loss_curve(steps: Sequence[Step], path: Path) -> None:
    """Plot the loss by step, with its mean over each epoch."""
    losses = np.array([step.loss for step in steps])
    epochs = np.array([step.epoch for step in steps])
    numbers = np.unique(epochs)
    means = np.array([losses[epochs == epoch].mean() for epoch in numbers])
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot((np.arange(len(losses)) + 1) / max(1, (epochs == 0).sum()), losses, lw=0.5, alpha=0.4)
    axes.plot(numbers + 1, means, lw=1.8, label="mean of the epoch")
    axes.set(xlabel="epoch", ylabel="training loss", yscale="log", title="Loss while training")
    axes.legend()
    with write_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
