"""Replay proven: gradients at the ledger's events, through a fresh optimiser, are the training.

Nothing of the training loop is used: not its batches, inputs, learning rates, loss or optimiser.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from retrac.diffusion.model import build_unet
from retrac.gradients import grouped_gradients, oracle
from retrac.training.config import TrainConfig
from retrac.training.loop import train
from retrac.training.run import Run
from tiny import table, tiny, weights

OPTIMISERS = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "sgd with momentum": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.03},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "loss": "l1", "prediction": "v"},
}


TOLERANCE = {"sgd": 1e-5, "adam": 1e-3, "adamw": 1e-3}
"""Of the distance the weights moved: float32 rounding, which Adam amplifies for it divides small
gradients by their own size. A single wrong event would be an error of the order of 0.1."""


@pytest.mark.parametrize("by", ["tape", "oracle"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_replayed_gradients_reproduce_the_weights(
    optimiser: str, by: str, runs: dict[str, Run]
) -> None:
    run = runs[optimiser]
    checkpoints = {checkpoint.epoch: checkpoint for checkpoint in run.checkpoints}
    start = build_unet(run.config.model, run.shape, run.config.seed).state_dict()
    for epoch, replayed in replay(run, by):
        trained = weights(checkpoints[epoch].path)
        assert trained.keys() == replayed.keys()
        moved, error = distance(trained, start), distance(trained, replayed)
        assert moved > 0.02
        assert error < TOLERANCE[run.config.optimisation.optimizer] * moved, (epoch, error, moved)


def test_a_wrong_event_would_show(runs: dict[str, Run]) -> None:
    """The tolerance is no loophole: one sample's event of another epoch is far outside it."""
    run = runs["adam"]
    start = build_unet(run.config.model, run.shape, run.config.seed).state_dict()
    trained = weights(run.checkpoints[0].path)
    _, replayed = next(replay(run, "tape", other=int(run.ledger.order(0)[0])))
    assert distance(trained, replayed) > 10 * TOLERANCE["adam"] * distance(trained, start)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).norm())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("replayed")
    plain = {"epochs": 3, "checkpoint_every": 1, "sample_count": 0, "ema_decay": None}
    return {
        name: train(tiny(**plain, max_grad_norm=0.5, **changes), folder / name)
        for name, changes in OPTIMISERS.items()
    }


def replay(run: Run, by: str, other: int | None = None) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Weights after each epoch, from the ledger, the images and the configuration alone.

    The sample `other`, if any, gets the events of epoch 99.
    """
    config = run.config
    model = build_unet(config.model, run.shape, config.seed)
    optimiser = fresh_optimiser(config, model)
    parameters = dict(model.named_parameters())
    step = 0
    for epoch in range(config.epochs):
        order = run.ledger.order(epoch)
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            mean = batch_gradient(run, model, epoch, batch, by, other)
            norm = torch.cat([gradient.flatten() for gradient in mean.values()]).norm()
            scale = min(1.0, config.optimisation.max_grad_norm / float(norm))
            for name, gradient in mean.items():
                parameters[name].grad = gradient * scale
            warm = min(1.0, (step + 1) / config.optimisation.warmup_steps)
            for group in optimiser.param_groups:
                group["lr"] = config.optimisation.learning_rate * warm
            optimiser.step()
            step += 1
        yield epoch + 1, {name: value.clone() for name, value in model.state_dict().items()}


def batch_gradient(
    run: Run, model: UNet2DModel, epoch: int, batch: np.ndarray, by: str, other: int | None
) -> dict[str, Tensor]:
    """Per-sample gradients at the ledger's events, averaged."""

    def losses() -> Tensor:
        events = run.ledger.events(epoch, batch, run.shape)
        if other in batch:
            row = batch.tolist().index(other)
            for drawn, wrong in zip(events, run.ledger.events(99, [other], run.shape), strict=True):
                drawn[row] = wrong[0]
        images = torch.from_numpy(run.dataset.images[batch].astype(np.float32)) / 127.5 - 1
        for row, mirrored in enumerate(events.flips):
            if mirrored:
                images[row] = images[row].flip(2)
        alpha_bar = run.making.scheduler.alphas_cumprod[events.timesteps][:, None, None, None]
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        told = model(signal * images + spread * events.noise, events.timesteps).sample
        if run.config.objective.prediction == "v":
            return (told - (signal * events.noise - spread * images)).abs().mean((1, 2, 3))
        return ((told - events.noise) ** 2).mean((1, 2, 3))

    if by == "oracle":
        found = oracle.per_sample_gradients(model, losses)
        return {name: gradients.mean(0) for name, gradients in found.items()}
    rows, _ = grouped_gradients(model, losses)
    return {name: layout.unpack(values).mean(0) for name, (layout, values) in rows.items()}


def fresh_optimiser(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    settings = config.optimisation
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=settings.momentum)
    if settings.optimizer == "adam":
        return torch.optim.Adam(model.parameters())
    return torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay)


def test_the_record_tells_the_learning_rates_and_batch_sizes(runs: dict[str, Run]) -> None:
    run = runs["adam"]
    columns = table(Path(run.path))
    assert columns["batch_size"].tolist() == [10, 10, 4] * 3
    assert columns["epoch"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert columns["learning_rate"].tolist() == [3e-3 * min(1, s / 4) for s in range(1, 10)]
