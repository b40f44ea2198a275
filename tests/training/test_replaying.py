"""A training replayed from a checkpoint: the same bits, until samples count otherwise."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrac.errors import RetracError
from retrac.training.config import ReplayConfig
from retrac.training.generation import generate_images
from retrac.training.inputs import training_inputs
from retrac.training.loop import first_weights, train
from retrac.training.replaying import ReplayedRun, replay
from retrac.training.run import Run
from retrac.training.sample_weights import SampleWeights, read_weights
from retrac.training.signals import Interrupted
from retrac.training.trained import TrainedRun
from tiny import TINY, tiny, weights

ONES = np.ones(24)
WITHOUT = np.where(np.arange(24) % 5 == 0, 0.0, 1.0)
"""Five of 24 samples left out."""
ONE_STEP = {"optimizer": "sgd", "learning_rate": 0.1, "warmup_steps": 0, "batch_size": 24}


def assert_same_weights(one: TrainedRun, other: TrainedRun) -> None:
    """At the last checkpoint of `one`, averages too."""
    last = one.checkpoints[-1]
    (there,) = (each for each in other.checkpoints if each.epoch == last.epoch)
    for folder in ("", "ema") if one.config.ema_decay else ("",):
        found, expected = weights(last.path / folder), weights(there.path / folder)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("first", "last"), [(0, None), (2, None), (4, None), (2, 4)])
def test_where_all_count_1_weights_are_the_runs_own_to_the_bit(
    first: int, last: int | None, tiny_run: TrainedRun, tmp_path: Path
) -> None:
    again = replay(tiny_run, ONES, ReplayConfig(first, last), tmp_path / "again")
    assert again.checkpoints[-1].epoch == (last or 6)
    assert_same_weights(again, tiny_run)


@pytest.mark.parametrize("mean_over", ["batch", "weights"])
def test_either_mean_is_the_same_where_all_count_1(
    mean_over: str, tiny_run: TrainedRun, tmp_path: Path
) -> None:
    window = ReplayConfig(4, mean_over=mean_over)
    assert_same_weights(replay(tiny_run, ONES, window, tmp_path / "again"), tiny_run)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"mixed_precision": "bf16"},
        {"mixed_precision": "fp16"},  # with the scaler of its losses
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_other_optimisers_and_precisions_replay_to_the_bit(
    changes: dict[str, object], tmp_path: Path
) -> None:
    config = tiny(**{**changes, "epochs": 2, "checkpoint_every": 1, "sample_count": 0})
    run = train(config, tmp_path / "run")
    assert_same_weights(replay(run, ONES, ReplayConfig(1), tmp_path / "again"), run)


@pytest.mark.parametrize("mean_over", ["batch", "weights"])
def test_a_step_is_that_of_the_weighted_loss(mean_over: str, tmp_path: Path) -> None:
    """One step of plain gradient descent, written out."""
    config = tiny(**{**ONE_STEP, "max_grad_norm": None}, epochs=1, sample_count=0)
    run = train(config, tmp_path / "run")
    counted = np.linspace(0, 2, 24)
    found = replay(run, counted, ReplayConfig(mean_over=mean_over), tmp_path / "replay")

    model = first_weights(config, run.shape)
    samples = np.arange(24)
    shown = training_inputs(run.dataset, run.ledger, 0, samples, config.flip)
    losses = run.objective.losses(model, *shown.on(torch.device("cpu")))
    divisor = 24 if mean_over == "batch" else counted.sum()
    ((losses * torch.from_numpy(counted)).sum() / divisor).backward()
    reached = weights(found.checkpoints[-1].path)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parameter.detach() - 0.1 * parameter.grad
        assert torch.allclose(reached[name], expected, atol=1e-6), name


def test_what_is_left_out_teaches_nothing(tmp_path: Path) -> None:
    """Its pixels may be anything."""
    config = tiny(epochs=1, sample_count=0)
    run = train(config, tmp_path / "run")
    one = replay(run, WITHOUT, ReplayConfig(), tmp_path / "one")
    images = run.dataset.images.copy()
    images[WITHOUT == 0] = 255 - images[WITHOUT == 0]
    other_data = replace(run.dataset, images=images)
    other_run = train(config, tmp_path / "other-run", dataset=other_data)
    other_run.__dict__["dataset"] = other_data
    other = replay(other_run, WITHOUT, ReplayConfig(), tmp_path / "other")
    assert_same_weights(one, other)
    found, before = (weights(each.checkpoints[-1].path) for each in (one, run))
    assert any(not torch.equal(found[name], before[name]) for name in before)


def test_stopped_and_started_again_it_ends_with_the_same_bits(
    tiny_run: TrainedRun, tmp_path: Path, during_step: Callable[..., None]
) -> None:
    window = ReplayConfig(2)
    whole = replay(tiny_run, WITHOUT, window, tmp_path / "whole")
    during_step(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="stopped after step 9 of 18"):
        replay(tiny_run, WITHOUT, window, tmp_path / "stopped")
    assert_same_weights(replay(tiny_run, WITHOUT, window, tmp_path / "stopped"), whole)


def test_a_begin_that_was_killed_is_taken_up(tiny_run: TrainedRun, tmp_path: Path) -> None:
    window = ReplayConfig(4)
    whole = replay(tiny_run, WITHOUT, window, tmp_path / "whole")
    killed = tmp_path / "killed"
    (killed / "checkpoints").mkdir(parents=True)
    (killed / "weights.npz").write_bytes(b"half")
    (killed / "steps.parquet.partial").write_bytes(b"half")
    assert_same_weights(replay(tiny_run, WITHOUT, window, killed), whole)


def test_a_replay_is_a_run(tiny_run: TrainedRun, tmp_path: Path) -> None:
    """It opens, generates from the same noises, and is told from the run and other replays."""
    found = replay(tiny_run, WITHOUT, ReplayConfig(4), tmp_path / "replay")
    opened = Run.open(found.path)
    assert isinstance(opened, ReplayedRun) and opened.from_epoch == 4
    assert [each.epoch for each in opened.checkpoints] == [4, 6]
    same = replay(tiny_run, ONES, ReplayConfig(4), tmp_path / "same")
    assert len({run.identity for run in (tiny_run, opened, same)}) == 3
    for place, run in enumerate((tiny_run, same, opened)):
        generate_images(run, tmp_path / f"made-{place}", 2, seed=1, steps=2)
    pictures = [
        [path.read_bytes() for path in sorted((tmp_path / f"made-{place}").glob("*.png"))]
        for place in range(3)
    ]
    assert len(pictures[0]) == 2 and pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize("mean_over", ["batch", "weights"])
def test_visits_count_what_the_replay_gave_them(
    mean_over: str, tiny_run: TrainedRun, tmp_path: Path
) -> None:
    window = ReplayConfig(4, mean_over=mean_over)
    found = replay(tiny_run, WITHOUT, window, tmp_path / "replay")
    before, after = found.visit_weights([3, 5])
    own = tiny_run.visit_weights([3, 5])
    assert np.array_equal(before, own[0])
    assert (after[WITHOUT == 0] == 0).all() and (after[WITHOUT == 1] > 0).all()
    for batch in found.ledger.batches(5, 10):
        staying = WITHOUT[batch].sum()
        expected = own[1][batch].sum() * (staying / len(batch) if mean_over == "batch" else 1)
        assert after[batch].sum() == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 4, width=32), min_size=1, max_size=12))
def test_shares_of_a_batch_add_up(values: list[float]) -> None:
    batch, counted = np.arange(len(values)), np.array(values, np.float32)
    over_weights = SampleWeights(counted, "weights").share(batch) * counted.sum(dtype=float)
    assert over_weights == pytest.approx(1 if counted.any() else 0)
    assert SampleWeights(counted).share(batch) * len(batch) == pytest.approx(1)


@pytest.mark.parametrize(
    ("counted", "window", "message"),
    [
        (ONES, ReplayConfig(3), r"no checkpoint after epoch 3: --from-epoch can be 0, 2, 4"),
        (ONES, ReplayConfig(6), "--to-epoch must be after --from-epoch"),
        (ONES, ReplayConfig(2, 0), "--to-epoch must be after --from-epoch"),
        (ONES, ReplayConfig(2, 9), "--to-epoch must be after --from-epoch and at most 6"),
        (ONES[:5], ReplayConfig(2), "weights must be 24 numbers"),
        (-ONES, ReplayConfig(2), "weights must be 24 numbers of at least 0"),
        (ONES * np.nan, ReplayConfig(2), "weights must be 24 numbers"),
        (0 * ONES, ReplayConfig(2), "no sample counts: leave some in"),
    ],
)
def test_what_makes_no_sense_is_refused(
    counted: np.ndarray, window: ReplayConfig, message: str, tiny_run: TrainedRun, tmp_path: Path
) -> None:
    with pytest.raises(RetracError, match=message):
        replay(tiny_run, counted, window, tmp_path / "replay")
    assert not (tmp_path / "replay").exists()


def test_an_unknown_mean_is_refused() -> None:
    with pytest.raises(RetracError, match="--mean-over"):
        ReplayConfig(mean_over="median")  # type: ignore[arg-type]


def test_a_replay_is_neither_overwritten_nor_trained_on(
    tiny_run: TrainedRun, tmp_path: Path
) -> None:
    found = replay(tiny_run, WITHOUT, ReplayConfig(4), tmp_path / "replay")
    with pytest.raises(RetracError, match="holds another run"):
        replay(tiny_run, ONES, ReplayConfig(4), found.path)
    with pytest.raises(RetracError, match="is a replay"):
        train(TINY, found.path)
    with pytest.raises(RetracError, match="is a replay"):
        TrainedRun.open(found.path)
    (found.path / "weights.npz").write_bytes(b"damaged")
    with pytest.raises(RetracError, match=r"weights\.npz cannot be read"):
        _ = Run.open(found.path).visit_weights([5])


def test_weights_are_read_from_a_file(tiny_run: TrainedRun, tmp_path: Path) -> None:
    ids, path = tiny_run.dataset.ids, tmp_path / "weights.csv"
    path.write_text(f"\ufeffid,weight\n{ids[3]},0.5\n{ids[7]},0\n", encoding="utf-8")
    expected = np.ones(24)
    expected[[3, 7]] = 0.5, 0
    assert np.array_equal(read_weights(path, tiny_run.dataset), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,weight\nnobody,1\n", "nor a sample is called 'nobody'"),
        ("name,weight\na,1\n", "neither a column nor a sample is called 'id'"),
        ("id,weight\ndigits/0000,much\n", "cannot be read as weights"),
        ("id,weight\ndigits/0000\n", "cannot be read as weights"),
        ("", "names no samples"),
        ("id,weight\n", "names no samples"),
        ("id,weight\ndigits/0000,1\ndigits/0000,0\n", "names 'digits/0000' twice"),
        ("id,weight\ndigits/0000,-1\n", "must be numbers from 0 on"),
        ("id,weight\ndigits/0000,nan\n", "must be numbers from 0 on"),
    ],
)
def test_files_that_are_no_weights_are_refused(
    content: str, message: str, tiny_run: TrainedRun, tmp_path: Path
) -> None:
    path = tmp_path / "weights.csv"
    path.write_text(content)
    with pytest.raises(RetracError, match=message):
        read_weights(path, tiny_run.dataset)
