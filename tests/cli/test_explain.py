"""`retrac explain`, as a stranger sees it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retrac.training.run import Run

from .conftest import Command


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrac.attribution.explain.ROUNDS", (1, 1))
    monkeypatch.setattr("retrac.gradients.speed.SECONDS", 0.0)


@pytest.mark.parametrize("width", [80, 100])
def test_explain(
    width: int, retrac: Command, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    told = retrac("explain", tiny_run.path, "--queries", 2)
    assert told.code == 0, told.err
    assert all(len(line) <= width for line in told.out.splitlines())
    for words in ("down_blocks.1", "write out", "biases, scales", "the pass", "of a train"):
        assert words in told.out
    assert "for 2 queries by retrac and tracin" in told.out


def test_explain_in_full_and_for_sketches(
    retrac: Command, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    told = retrac("explain", tiny_run.path, "--all", "--sketch-size", 200, "--samples", 4)
    assert told.code == 0, told.err
    model = tiny_run.checkpoints[-1].load(tiny_run.shape)
    firsts = [line.split(" ")[0] for line in told.out.splitlines()]
    assert all(firsts.count(name) == 1 for name, _ in model.named_parameters())
    assert "A sketching pass over 4 samples" in told.out


def test_explain_refuses(refusal: Callable[..., str], tiny_run: Run, tmp_path: Path) -> None:
    assert "--queries must be at least 1, not 0" in refusal(
        "explain", tiny_run.path, "--queries", 0
    )
    assert "no run at" in refusal("explain", tmp_path / "none")
    assert "a memory budget of 1MB is too small" in refusal(
        "explain", tiny_run.path, "--memory-budget", "1MB"
    )
