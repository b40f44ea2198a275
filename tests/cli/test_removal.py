"""`retrac removal`: from scores to tables, numbers and a picture."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retrac import estimate
from retrac.training.run import Run

from .conftest import Command

SMALL = ("--plan-timesteps", 2, "--plan-noises", 2, "--checkpoints", 2)
FEW = (
    *("--k", 3, "--queries-used", 1, "--random-draws", 1),
    *("--loss-timesteps", 2, "--loss-noises", 2),
)


def test_removal(
    retrac: Command,
    refusal: Callable[..., str],
    brief_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimate, "PROBE_SECONDS", 0)
    scores, output = tmp_path / "scores", tmp_path / "removal"
    run = Path(shutil.copytree(brief_run.path, tmp_path / "run"))
    queries = ("--queries", "generated:2", "--methods", "retrac")
    assert retrac("attribute", run, *queries, *SMALL, "--output", scores).code == 0
    command = ("removal", run, "--attribution", scores, *FEW, "--output", output)
    told = retrac(*command, "--dry-run")
    assert told.code == 0 and "about " in told.err and not output.exists()
    told = retrac(*command)
    assert told.code == 0, told.err
    assert "model 1 of 4: random-00" in told.out and "model 4 of 4: training-loss" in told.out
    assert "Removal, beyond random" in told.out and f"picture: {output}" in told.out
    found = json.loads((output / "removal.json").read_text())
    assert set(found["Removal"]) == {"random", "retrac", "pixels", "training loss"}
    assert len(found["removed"]["random-00"]) == found["k"] == 3 and found["samples"] == 24
    assert 0 < found["Removal"]["retrac"]["pixel distance"]["value"] <= 1
    assert "Removal, beyond random" in (scores / "report.html").read_text()
    with Image.open(output / "removal.png") as picture:
        assert picture.width > 400
    (output / "found/retrac-query-00.npz").unlink()
    again = retrac(*command)
    assert "model 1 of 1: retrac-query-00" in again.out
    assert json.loads((output / "removal.json").read_text()) == found
    other = ("--attribution", scores, *FEW[2:], "--k", 30)
    assert "--k must be at most" in refusal("removal", run, *other)
    assert "is not an attribution" in refusal("removal", run, "--attribution", tmp_path)
