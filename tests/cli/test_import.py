"""`retrac import`: from the published code's files to scores, reports and what cannot be asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from published_training import images, train

from .conftest import BOTH, Command

SMALL = ("--plan-timesteps", 2, "--plan-noises", 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the dataset, `images.npz`. Not to be changed."""
    folder = tmp_path_factory.mktemp("published")
    return train(folder / "files", images(folder))


@pytest.fixture
def imported(files: Path, tmp_path: Path, retrac: Command) -> Path:
    told = retrac(
        "import", files, "--dataset", files.with_name("images.npz"), "--output", tmp_path / "run"
    )
    assert told.code == 0, told.err
    for line in (
        "network: U-Net of the published code, widths 8 16 24",
        "checkpoints: 2",
        "samples: 22",
        "samples without an event: 2",
        "events: recorded by the published code",
    ):
        assert line in told.out
    return tmp_path / "run"


@pytest.mark.slow
def test_an_imported_training_is_asked_like_any_run(imported: Path, retrac: Command) -> None:
    told = retrac("attribute", imported, "--queries", "train:2+generated:1", *SMALL, *BOTH)
    assert told.code == 0, told.err
    assert "events: recorded by the published code" in told.out
    page = next(imported.glob("attributions/*/report.html")).read_text()
    assert "recorded by the published code" in page and "per unit of it" in page
    for command in (
        ("index", imported, "--sketch-size", 300, *BOTH),
        ("attribute", imported, "--queries", "train:1", "--index", *SMALL, *BOTH),
        ("attribute", imported, "--queries", "train:1", *BOTH, "--plan", "fast", "--replay", "all"),
        ("norms", imported, "--timesteps", 3, "--samples", 4),
        ("outliers", imported, "--samples", 4, *SMALL),
        ("explain", imported),
        ("generate", imported, "--count", 3, "--steps", 2),
        ("evaluate", imported, "--queries", "each:1", *SMALL, *BOTH, "--moved", 2),
    ):
        told = retrac(*command)
        assert told.code == 0, (command, told.err)
    file = next(imported.glob("attributions/each-1-tracin-retrac/evaluation.json"))
    sections = {s["name"]: s for s in json.loads(file.read_text())["sections"]}
    assert sections["Tracing"]["rows"]
    assert "imported" in sections["Linear datamodelling score"]["note"]


def test_fresh_events_are_asked_for_by_name(files: Path, tmp_path: Path, retrac: Command) -> None:
    told = retrac(
        *("import", files, "--dataset", files.with_name("images.npz"), "--events", "fresh"),
        *("--seed", 3, "--output", tmp_path / "run"),
    )
    assert told.code == 0, told.err
    assert "events: fresh, drawn anew for each checkpoint" in told.out
    told = retrac("attribute", tmp_path / "run", "--queries", "train:1", *SMALL, *BOTH)
    assert told.code == 0 and "not those of training" in told.out
    assert "recorded:" in retrac("import", "--help").out


def test_refusals_are_one_line(
    files: Path, imported: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    data = ("--dataset", files.with_name("images.npz"))
    assert "holds another run" in refusal(
        "import", files, *data, "--events", "fresh", "--output", imported
    )
    assert "was adopted or imported" in refusal("lds", "prepare", imported, "--queries", "train:1")
    (tmp_path / "bad").mkdir()
    torch.save({"model_state": Path("code")}, tmp_path / "bad" / "ckpt_1_1.pth")
    told = refusal("import", tmp_path / "bad", *data, "--output", tmp_path / "other")
    assert "pathlib" in told and "could run code: it is not read" in told
    assert not (tmp_path / "other").exists()
