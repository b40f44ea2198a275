"""Stopped at any moment and started again, a training ends with the same bits."""

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrac.errors import RetracError
from retrac.training import state
from retrac.training.loop import train
from retrac.training.run import Run
from retrac.training.signals import Interrupted
from tiny import TINY, table, tiny

from .dying import killed_after, killed_at_change


def test_training_twice_gives_the_same_bits(tiny_run: Run, tmp_path: Path) -> None:
    train(TINY, tmp_path / "again")
    assert_same(tmp_path / "again", tiny_run.path)


@pytest.mark.slow
def test_killed_at_random_moments(tiny_run: Run, tmp_path: Path) -> None:
    random, codes = np.random.default_rng(0), []
    while 0 not in codes:
        seconds = random.uniform(0.1, 1.0) * (1 + len(codes) / 4)  # ends, on a slow machine too
        codes.append(killed_after(seconds, TINY, tmp_path / "killed"))
    assert set(codes) <= {0, -signal.SIGKILL}
    assert_same(tmp_path / "killed", tiny_run.path)


@pytest.mark.slow
def test_killed_between_any_two_file_operations(tiny_run: Run, tmp_path: Path) -> None:
    """Within the record's writing, a state's, a checkpoint's, a picture's, and the clean-up."""
    for number in [1, 2, 3, 4, 5, 9, 16, 23, 30, 37, 44, 51]:
        killed_at_change(number, TINY, tmp_path / "killed")
    train(TINY, tmp_path / "killed")
    assert_same(tmp_path / "killed", tiny_run.path)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_step_with_everything_saved(
    stop: signal.Signals, tiny_run: Run, tmp_path: Path, during_step: Callable[..., None]
) -> None:
    before = signal.getsignal(stop)
    during_step(7, lambda: os.kill(os.getpid(), stop))
    with pytest.raises(Interrupted, match="stopped after step 8 of 18; the same command goes on"):
        train(TINY, tmp_path / "stopped")
    assert signal.getsignal(stop) == before
    assert [path.name for path in (tmp_path / "stopped/state").iterdir()] == ["step-00000008"]
    train(TINY, tmp_path / "stopped")
    assert_same(tmp_path / "stopped", tiny_run.path)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal: a script's background commands begin with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_acts_as_always(
    interruptible: None, tmp_path: Path, during_step: Callable[..., None]
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    during_step(3, twice)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path / "stopped")


@pytest.mark.parametrize(
    ("broken", "call", "whole"),
    [
        ("save_file", 1, 0),
        ("save_file", 3, 2),
        ("write_json", 2, 1),
        ("UNet2DModel.save_pretrained", 3, 1),  # the second checkpoint's; then its average's
        ("EMAModel.restore", 4, 1),
    ],
)
def test_an_error_within_saving_loses_nothing_saved_before(
    broken: str,
    call: int,
    whole: int,
    tiny_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "full"
    with monkeypatch.context() as patched:
        fails_at(patched, broken, call, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(RetracError, match=r"no space left to write .*epoch-"):
            train(TINY, output)
    assert not list(output.rglob("*.partial"))
    saved = list((output / "checkpoints").glob("*"))
    assert len(saved) == whole
    for folder in saved:
        assert_same_folder(folder, tiny_run.path / "checkpoints" / folder.name)
    train(TINY, output)
    assert_same(output, tiny_run.path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_resumes_too(
    precision: str, tmp_path: Path, during_step: Callable[..., None]
) -> None:
    """With the scaler of its losses, where it has one."""
    config = tiny(mixed_precision=precision, epochs=2, sample_count=0)
    whole = train(config, tmp_path / "whole")
    during_step(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    assert_same(tmp_path / "stopped", whole.path)


@pytest.mark.parametrize("epochs", [1, 3])
def test_more_epochs_later_are_the_same_as_more_at_once(
    epochs: int, tiny_run: Run, tmp_path: Path
) -> None:
    run = train(tiny(epochs=epochs), tmp_path / "extended")
    assert run.checkpoints[-1].epoch == epochs
    run = train(TINY, run.path)
    assert run.config == TINY
    shutil.rmtree(run.path / f"checkpoints/epoch-{epochs:04d}")  # each call ends with one
    (run.path / f"samples/epoch-{epochs:04d}.png").unlink()
    assert_same(run.path, tiny_run.path)


def test_a_finished_run_is_left_as_it_is(own_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_run.rglob("*") if path.is_file()}
    train(TINY, own_run)
    assert before == {p: p.stat().st_mtime_ns for p in own_run.rglob("*") if p.is_file()}


def test_fewer_epochs_than_trained_are_refused(own_run: Path) -> None:
    with pytest.raises(RetracError, match="trained beyond epoch 5 already: give more --epochs"):
        train(tiny(epochs=5), own_run)


def test_half_written_folders_do_not_count(own_run: Path, tiny_run: Run) -> None:
    last = own_run / "checkpoints/epoch-0006"
    shutil.copytree(last, last.with_name("epoch-0009.partial"))
    (last / "state.json").unlink()
    assert [checkpoint.epoch for checkpoint in Run.open(own_run).checkpoints] == [2, 4]
    train(TINY, own_run)
    shutil.rmtree(last.with_name("epoch-0009.partial"))
    assert_same(own_run, tiny_run.path)


@pytest.mark.parametrize(
    "file",
    [
        "diffusion_pytorch_model.safetensors",
        "ema/diffusion_pytorch_model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "config.json",
    ],
)
def test_a_damaged_file_in_the_newest_checkpoint_is_named(file: str, own_run: Path) -> None:
    folder = own_run / "checkpoints/epoch-0004"
    shutil.rmtree(own_run / "checkpoints/epoch-0006")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(RetracError, match=f"{folder}.*damaged") as told:
        train(TINY, own_run)
    assert "\n" not in str(told.value)


def test_lost_weights_are_not_replaced_by_random_ones(own_run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = own_run / "checkpoints/epoch-0006/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(RetracError, match=r"epoch-0006 lacks weights \(conv_in.bias\)"):
        train(tiny(epochs=7), own_run)


def test_steps_that_do_not_belong_to_the_weights_are_refused(own_run: Path) -> None:
    from retrac.training.steps import read_steps, write_steps

    write_steps(own_run, read_steps(own_run)[:-1])
    with pytest.raises(RetracError, match=r"records 17 steps but .*epoch-0006 was saved after 18"):
        train(tiny(epochs=7), own_run)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"learning_rate": 0.5}, "learning_rate was 0.003, now 0.5"),
        ({"flip": False}, "flip was True, now False"),
        ({"data": replace(TINY.data, limit=23)}, "another dataset"),
        ({"data": replace(TINY.data, resolution=16)}, "another dataset"),
    ],
)
def test_a_run_of_other_settings_is_not_overwritten(
    changes: dict[str, Any], told: str, tiny_run: Run
) -> None:
    with pytest.raises(RetracError, match=told):
        train(tiny(**changes), tiny_run.path)


def test_a_folder_of_other_things_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for output in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(RetracError, match="is not a run; choose another --output"):
            train(TINY, output)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_generator_that_has_changed_is_noticed(own_run: Path) -> None:
    path = own_run / "run.json"
    record = json.loads(path.read_text())
    record["ledger"]["digest"] = "0" * 64
    record["versions"]["numpy"] = "1.0.7"
    path.write_text(json.dumps(record))
    with pytest.raises(RetracError, match=r"does not reproduce the events.*NumPy 1\.0\.7"):
        train(TINY, own_run)


def fails_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, error: Exception) -> None:
    """Let a function that `state.py` uses fail, the so-many-th time it is called."""
    *owner, function = name.split(".")
    home = getattr(state, owner[0]) if owner else state
    works, calls = getattr(home, function), iter(range(1, 10**6))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise error
        return works(*arguments, **options)

    monkeypatch.setattr(home, function, failing)


def assert_same(run: Path, other: Path) -> None:
    """Equal to the bit: weights, averages, optimiser, states, pictures and steps."""
    assert_same_folder(run / "checkpoints", other / "checkpoints")
    if (other / "samples").exists():
        assert_same_folder(run / "samples", other / "samples")
    steps, others = table(run), table(other)
    assert steps.keys() == others.keys()
    assert all(np.array_equal(steps[name], others[name]) for name in steps)
    assert {path.name for path in run.iterdir()} == {path.name for path in other.iterdir()}


def assert_same_folder(folder: Path, other: Path) -> None:
    files, others = (
        {p.relative_to(f) for f in [at] for p in at.rglob("*")} for at in (folder, other)
    )
    assert files == others
    for file in files:
        if (folder / file).is_file():
            assert (folder / file).read_bytes() == (other / file).read_bytes(), file
