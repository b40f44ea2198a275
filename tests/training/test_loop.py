"""What training does, step by step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image

from retrac.diffusion.model import build_unet
from retrac.errors import RetracError
from retrac.training import loop
from retrac.training.loop import train
from retrac.training.optimiser import learning_rate
from retrac.training.run import Run
from tiny import TINY, table, tiny, weights

SHORT: dict[str, Any] = {"epochs": 1, "checkpoint_every": 1, "sample_count": 0}


def test_a_run_has_its_checkpoints_pictures_curve_and_steps(tiny_run: Run) -> None:
    assert [checkpoint.epoch for checkpoint in tiny_run.checkpoints] == [2, 4, 6]
    grids = sorted((tiny_run.path / "samples").iterdir())
    assert [path.name for path in grids] == [f"epoch-{n:04d}.png" for n in (2, 4, 6)]
    for path in (*grids, tiny_run.path / "loss.png"):
        with Image.open(path) as picture:
            picture.load()
    assert not (tiny_run.path / "state").exists()
    steps = table(tiny_run.path)
    assert steps["step"].tolist() == list(range(18))
    assert steps["batch_size"].tolist() == [10, 10, 4] * 6
    assert steps["loss"][-3:].mean() < steps["loss"][:3].mean()


def test_every_sample_is_trained_once_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[tuple[int, int]] = []
    inputs = loop.training_inputs

    def counted(dataset: Any, ledger: Any, epoch: int, indices: np.ndarray, flip: bool) -> Any:
        visits.extend((epoch, int(index)) for index in indices)
        return inputs(dataset, ledger, epoch, indices, flip)

    monkeypatch.setattr(loop, "training_inputs", counted)
    train(tiny(**{**SHORT, "epochs": 2}), tmp_path / "run")
    assert sorted(visits) == [(epoch, index) for epoch in range(2) for index in range(24)]


def test_the_recorded_loss_is_the_mean_over_the_batch(tmp_path: Path) -> None:
    """Of the first step, whose weights are known."""
    run = train(tiny(**SHORT), tmp_path / "run")
    batch = run.ledger.batches(0, 10)[0]
    inputs = loop.training_inputs(run.dataset, run.ledger, 0, batch, True)
    losses = run.objective.losses(build_unet(TINY.model, run.shape, 0), *inputs)
    assert table(run.path)["loss"][0] == pytest.approx(losses.mean().item(), rel=1e-5)


def test_the_learning_rate_warms_up_linearly_then_stays() -> None:
    config = tiny(learning_rate=0.4, warmup_steps=4).optimisation
    assert [learning_rate(config, step) for step in range(6)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]
    )
    assert learning_rate(tiny(learning_rate=0.4, warmup_steps=0).optimisation, 0) == 0.4


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("loss", ["l1", "mse"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "clipped-cosine"])
def test_every_objective_trains(
    prediction: str, loss: str, schedule: str, tmp_path: Path, no_curve: None
) -> None:
    config = tiny(**SHORT, batch_size=24, prediction=prediction, loss=loss, schedule=schedule)
    run = train(config, tmp_path / "run")
    assert np.isfinite(table(run.path)["loss"]).all()
    assert run.config.objective.prediction == prediction


def test_the_moving_average_is_that_of_the_weights_after_every_step(tmp_path: Path) -> None:
    """One step an epoch and a checkpoint after each: the average can be followed by hand."""
    run = train(tiny(batch_size=24, epochs=4, checkpoint_every=1, sample_count=0), tmp_path / "run")
    average = dict(build_unet(TINY.model, run.shape, 0).named_parameters())
    for step, checkpoint in enumerate(run.checkpoints):
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        for name, weight in weights(checkpoint.path).items():
            average[name] = decay * average[name].detach() + (1 - decay) * weight
        saved = weights(checkpoint.path / "ema")
        assert all(torch.allclose(saved[name], average[name], atol=1e-6) for name in average)
        generating = checkpoint.load_averaged(run.shape).state_dict()
        assert all(torch.equal(generating[name], saved[name]) for name in saved)


def test_without_a_moving_average_images_come_from_the_weights(tmp_path: Path) -> None:
    run = train(tiny(**SHORT, ema_decay=None), tmp_path / "run")
    [checkpoint] = run.checkpoints
    assert not (checkpoint.path / "ema").exists()
    generating = checkpoint.load_averaged(run.shape).state_dict()
    trained = weights(checkpoint.path)
    assert all(torch.equal(generating[name], trained[name]) for name in trained)


def test_half_precision_trains_nearly_the_same_and_saves_full_weights(tmp_path: Path) -> None:
    """Also after a training in full precision in the same process, and before another."""
    full = train(tiny(**SHORT), tmp_path / "full")
    half = train(tiny(**SHORT, mixed_precision="bf16"), tmp_path / "half")
    again = train(tiny(**SHORT), tmp_path / "again")
    losses = [table(run.path)["loss"] for run in (full, half, again)]
    assert np.array_equal(losses[0], losses[2])
    assert not np.array_equal(losses[0], losses[1])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert all(w.dtype == torch.float32 for w in weights(half.checkpoints[0].path).values())


def test_training_starts_from_pretrained_weights(tmp_path: Path, tiny_run: Run) -> None:
    pretrained = tiny_run.checkpoints[-1]
    run = train(tiny(**SHORT, pretrained=pretrained.path, seed=3), tmp_path / "run")
    batch = run.ledger.batches(0, 10)[0]
    inputs = loop.training_inputs(run.dataset, run.ledger, 0, batch, True)
    losses = run.objective.losses(pretrained.load(run.shape), *inputs)
    assert table(run.path)["loss"][0] == pytest.approx(losses.mean().item(), rel=1e-5)


def test_pretrained_weights_for_another_resolution_are_fine(tmp_path: Path) -> None:
    """The snapshot shows images of the dataset's size, not of the one the model was made for."""
    build_unet(TINY.model, (1, 32, 32), 0).save_pretrained(tmp_path / "model")
    run = train(tiny(**{**SHORT, "sample_count": 1}, pretrained=tmp_path / "model"), tmp_path / "r")
    with Image.open(run.path / "samples/epoch-0001.png") as picture:
        assert picture.size == (48, 48)  # 8 pixels and gaps of 2, four times enlarged


def test_a_loss_that_is_not_finite_names_the_sample_and_keeps_earlier_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = loop.training_inputs

    def poisoned(dataset: Any, ledger: Any, epoch: int, indices: np.ndarray, flip: bool) -> Any:
        shown = inputs(dataset, ledger, epoch, indices, flip)
        shown.noise[torch.from_numpy(indices == 17) & (epoch == 3)] = torch.nan
        return shown

    monkeypatch.setattr(loop, "training_inputs", poisoned)
    with pytest.raises(RetracError, match=r"loss of sample 'digits/0017' is not finite in epoch 4"):
        train(TINY, tmp_path / "run")
    assert [checkpoint.epoch for checkpoint in Run.open(tmp_path / "run").checkpoints] == [2]


def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient that overflows in an epoch's last step is seen by no later loss."""
    works = loop.make_optimizer

    def broken(config: Any, model: UNet2DModel) -> torch.optim.Optimizer:
        optimizer = works(config, model)
        step = optimizer.step

        def overflow(*arguments: Any, **options: Any) -> Any:
            step(*arguments, **options)
            with torch.no_grad():
                model.conv_in.bias[0] = torch.inf

        optimizer.step = overflow  # type: ignore[method-assign]
        return optimizer

    monkeypatch.setattr(loop, "make_optimizer", broken)
    with pytest.raises(RetracError, match="weights are not finite after epoch 1"):
        train(tiny(**SHORT, batch_size=24), tmp_path / "run")
    with pytest.raises(RetracError, match="no whole checkpoint"):
        _ = Run.open(tmp_path / "run").checkpoints


@pytest.fixture
def no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the loss curve, which takes longer than training does."""
    from retrac.training import snapshot

    nothing: Callable[..., None] = lambda steps, path: None  # noqa: E731
    monkeypatch.setattr(snapshot, "loss_curve", nothing)
