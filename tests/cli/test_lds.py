"""`retrac lds`: from retrained models to a table."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrac.evaluation.baselines import NAMES
from retrac.evaluation.retraining import Retraining
from retrac.training.run import Run

from .conftest import BOTH, Command

Refusal = Callable[..., str]
SMALL = ("--plan-timesteps", 2, "--plan-noises", 2)
PREPARE = (
    *("--queries", "train:2", "--subsets", 8, "--seeds", 2),
    *("--loss-timesteps", 2, "--loss-noises", 2),
)


@pytest.fixture(scope="module")
def prepared(brief_run: Run, tmp_path_factory: pytest.TempPathFactory, retrac: Command) -> Path:
    """A copy of the brief run with the losses of retrained models. Not to be changed."""
    path = Path(shutil.copytree(brief_run.path, tmp_path_factory.mktemp("lds") / "run"))
    for part in ("2/2", "1/2"):
        assert retrac("lds", "prepare", path, *PREPARE, "--part", part).code == 0
    assert retrac("attribute", path, "--queries", "train:2", *SMALL, *BOTH).code == 0
    return path


def test_every_model_is_measured_once_and_let_go(prepared: Path) -> None:
    run = Run.open(prepared)
    retraining = Retraining.open(run, prepared / "lds")
    losses = retraining.losses()
    assert losses.shape == (8, 2, 2) and np.isfinite(losses).all()
    assert len(np.unique(losses[..., 0])) == 16  # no two models are the same
    assert not list((prepared / "lds" / "models").iterdir())
    assert retraining.missing() == []
    assert retraining.queries.ids == ("digits/0000", "digits/0012")


def test_a_lost_model_is_made_again_to_the_same_losses(
    prepared: Path, tmp_path: Path, retrac: Command
) -> None:
    own = Path(shutil.copytree(prepared, tmp_path / "run"))
    lost = own / "lds" / "losses" / "subset-0003-seed-1.json"
    before = lost.read_text()
    lost.unlink()
    told = retrac("lds", "prepare", own, *PREPARE)
    assert told.code == 0 and "model 1 of 1: subset-0003-seed-1" in told.out
    assert "16 of 16 models" in told.out
    assert lost.read_text() == before


def test_parts_are_disjoint_and_together_everything(prepared: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(prepared, tmp_path / "run"))
    shutil.rmtree(own / "lds" / "losses")
    retraining = Retraining.open(Run.open(own), own / "lds")
    numbers = [model.number for part in (1, 2, 3) for model in retraining.missing((part, 3))]
    assert sorted(numbers) == list(range(16))


def test_scores_are_held_against_the_losses(
    prepared: Path, tmp_path: Path, retrac: Command
) -> None:
    attribution, output = prepared / "attributions" / "train-2-tracin-retrac", tmp_path / "lds.json"
    told = retrac("lds", "score", prepared, "--attributions", attribution, "--output", output)
    assert told.code == 0, told.err
    for name in ("random", "pixels", "tracin", "retrac", "models of another seed"):
        assert name in told.out
    found = json.loads(output.read_text())
    assert (found["subsets"], found["seeds"], found["queries"]) == (8, 2, 2)
    assert set(found["lds"]) == {*NAMES, "tracin", "retrac"}
    scored = found["lds"]["retrac"]
    assert scored["low"] <= scored["value"] <= scored["high"] and -1 <= scored["value"] <= 1
    assert found["ceiling"]["between_seeds"]["value"] <= 1


def test_folders_of_one_name_are_told_apart(
    prepared: Path, tmp_path: Path, retrac: Command, refusal: Refusal
) -> None:
    one = prepared / "attributions" / "train-2-tracin-retrac"
    other = Path(shutil.copytree(one, tmp_path / one.name))
    output = tmp_path / "lds.json"
    score = ("lds", "score", prepared, "--attributions")
    assert retrac(*score, one, other, "--output", output).code == 0
    found = json.loads(output.read_text())["lds"]
    assert found[f"retrac, {one}"] == found[f"retrac, {other}"]
    assert "names a folder twice" in refusal(*score, one, one)


def test_an_evaluation_counts_retrained_models_of_the_same_queries(
    prepared: Path, tmp_path: Path, retrac: Command
) -> None:
    own = Path(shutil.copytree(prepared, tmp_path / "run"))
    told = retrac("evaluate", own, "--queries", "train:2", *SMALL, *BOTH, "--moved", 0)
    assert "upper bound" in told.out and "--moved is 0" in told.out
    told = retrac("evaluate", own, "--queries", "train:3", *SMALL, *BOTH, "--moved", 0)
    assert "was scored for other queries" in told.out


def test_a_folder_that_was_hardly_begun_is_gone_on_with(own_run: Path, retrac: Command) -> None:
    asked = ("--queries", "train:1", "--subsets", 1, "--loss-timesteps", 1, "--loss-noises", 1)
    (own_run / "lds").mkdir()
    (own_run / "lds" / "queries.npz").write_bytes(b"killed while it was writ")
    told = retrac("lds", "prepare", own_run, *asked)
    assert told.code == 0, told.err
    assert Retraining.open(Run.open(own_run), own_run / "lds").queries.ids == ("digits/0000",)


def test_what_does_not_fit_is_said(prepared: Path, tmp_path: Path, refusal: Refusal) -> None:
    own = Path(shutil.copytree(prepared, tmp_path / "run"))
    attribution = own / "attributions" / "train-2-tracin-retrac"
    score = ("lds", "score", own, "--attributions", attribution)
    other = (*PREPARE[:3], 9, *PREPARE[4:])
    assert "was begun with another config" in refusal("lds", "prepare", own, *other)
    assert "must be like 2/4" in refusal("lds", "prepare", own, *PREPARE, "--part", "3/2")
    assert "--subsets must be at least 1" in refusal(
        "lds", "prepare", own, "--queries", "train:1", "--subsets", 0
    )
    assert "--fraction must be between" in refusal(
        "lds", "prepare", own, "--queries", "train:1", "--fraction", 1
    )
    assert "holds no retrained models" in refusal(*score, "--losses", tmp_path)
    config = attribution / "config.json"
    config.write_text(config.read_text().replace('"queries": "', '"queries": "x'))
    assert "scored for other queries" in refusal(*score)
    (own / "lds" / "losses" / "subset-0000-seed-0.json").unlink()
    told = refusal(*score)
    assert "7 subsets: a correlation needs at least 8; let `retrac lds prepare` go on" in told
    (own / "lds" / "losses" / "subset-0001-seed-0.json").write_text("{}")
    assert "is damaged" in refusal(*score)


def test_too_few_subsets_need_a_folder_of_their_own(
    prepared: Path, tmp_path: Path, retrac: Command, refusal: Refusal
) -> None:
    few = ("--queries", "train:1", "--subsets", 1, "--seeds", 1, "--output", tmp_path / "few")
    assert retrac("lds", "prepare", prepared, *few).code == 0
    attribution = prepared / "attributions" / "train-2-tracin-retrac"
    told = refusal(
        *("lds", "score", prepared, "--attributions", attribution, "--losses", tmp_path / "few")
    )
    assert "needs at least 8; prepare 8 --subsets or more in another --output" in told


def test_with_too_few_subsets_of_every_seed_the_first_counts(
    prepared: Path, tmp_path: Path, retrac: Command
) -> None:
    own = Path(shutil.copytree(prepared, tmp_path / "run"))
    (own / "lds" / "losses" / "subset-0000-seed-1.json").unlink()
    output = tmp_path / "lds.json"
    attribution = own / "attributions" / "train-2-tracin-retrac"
    told = retrac("lds", "score", own, "--attributions", attribution, "--output", output)
    assert told.code == 0, told.err
    assert json.loads(output.read_text())["ceiling"] is None
