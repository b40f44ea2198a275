"""The examples run, and what they claim is so."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import retrac
from retrac.training.adopted import REPLAYED

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_loop_of_one_s_own_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    events = retrac.Ledger.events

    def noted(self: retrac.Ledger, epoch: int, indices: torch.Tensor, shape: tuple[int, ...]):
        found = events(self, epoch, indices, shape)
        if isinstance(indices, torch.Tensor):  # by the example
            asked.append((epoch, indices.tolist(), *found))
        return found

    monkeypatch.setattr(retrac.Ledger, "events", noted)
    monkeypatch.setattr(sys, "argv", ["own_loop.py", str(tmp_path), "--samples", "40"])
    runpy.run_path(str(EXAMPLES / "own_loop.py"), run_name="__main__")
    run = retrac.Run.open(tmp_path / "run")
    assert [checkpoint.epoch for checkpoint in run.checkpoints] == [2, 4, 6]
    assert sorted(index for epoch, indices, *_ in asked if epoch == 3 for index in indices) == [
        *range(40)
    ]
    for epoch, indices, timesteps, noise, _ in asked:
        shown = run.shown(epoch, np.array(indices))
        assert torch.equal(shown.timesteps, timesteps) and torch.equal(shown.noise, noise)
    assert run.facts["events"] == REPLAYED
    page = (tmp_path / "report.html").read_text()
    assert "Nobody recorded" not in page and "training visited it" in page
