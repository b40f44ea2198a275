"""`retrac adopt`: from a pipeline's folder to scores, and to what cannot be asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from families import pipeline
from retrac.training.visits import SAMPLED

from .conftest import BOTH, Command

SMALL = ("--plan-timesteps", 2, "--plan-noises", 2)


@pytest.fixture
def adopted(tmp_path: Path, retrac: Command) -> Path:
    model = pipeline(tmp_path / "model", classes=10)
    told = retrac(
        *("adopt", "--pipeline", model, "--dataset", "digits", "--resolution", 8, "--limit", 24),
        *("--events", 6, "--output", tmp_path / "run"),
    )
    assert told.code == 0, told.err
    for line in ("network: UNet2DModel", "samples: 24", "--checkpoints 6"):
        assert f"  {line}\n" in told.out
    assert "it is told: classes: 0 = 0, 1 = 1" in told.out and "events: sampled" in told.out
    return tmp_path / "run"


@pytest.mark.slow
def test_an_adopted_model_is_asked_like_any_run(adopted: Path, retrac: Command) -> None:
    queries = ("--queries", "train:2+generated:1", *SMALL, *BOTH)
    told = retrac("attribute", adopted, *queries, "--replay", 4)
    assert told.code == 0, told.err
    assert "events: sampled" in told.out and "very likely" in told.out
    page = next(adopted.glob("attributions/*/report.html")).read_text()
    assert SAMPLED in page
    for command in (
        ("index", adopted, "--sketch-size", 300, *BOTH),
        ("attribute", adopted, "--queries", "train:1", "--index", *SMALL, *BOTH),
        ("norms", adopted, "--timesteps", 3, "--samples", 4),
        ("outliers", adopted, "--samples", 4, *SMALL),
        ("explain", adopted),
        ("generate", adopted, "--count", 3, "--steps", 2),
        ("evaluate", adopted, "--queries", "each:1", *SMALL, *BOTH, "--moved", 2),
    ):
        told = retrac(*command)
        assert told.code == 0, (command, told.err)
    file = next(adopted.glob("attributions/each-1-tracin-retrac/evaluation.json"))
    sections = {s["name"]: s for s in json.loads(file.read_text())["sections"]}
    assert sections["Tracing"]["rows"]
    assert "not for an adopted model" in sections["Linear datamodelling score"]["note"]


def test_what_trains_again_needs_a_run_that_was_trained(
    adopted: Path, retrac: Command, refusal: Callable[..., str]
) -> None:
    assert retrac("attribute", adopted, "--queries", "train:1", *SMALL, *BOTH).code == 0
    scores = adopted / "attributions" / "train-1-tracin-retrac"
    for command in (
        ("lds", "prepare", adopted, "--queries", "train:1"),
        ("removal", adopted, "--attribution", scores, "--k", 2),
    ):
        assert "was adopted" in refusal(*command)
    assert "holds another run" in refusal(
        *("adopt", "--pipeline", adopted.with_name("model"), "--dataset", "digits"),
        *("--resolution", 8, "--limit", 23, "--output", adopted),
    )
