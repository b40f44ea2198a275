"""`--dry-run` tells what a command needs and leaves nothing behind."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retrac import estimate as estimates
from retrac.attribution import costs
from retrac.attribution.attribution import Attribution
from retrac.training import estimate as of_training
from retrac.training.loop import train
from retrac.training.run import Run
from tiny import TINY, weights

from .conftest import BOTH, Command

SMALL = ("--plan-timesteps", "2", "--plan-noises", "2")
TRAIN = (
    *("train", "--limit", 24, "--resolution", 8, "--channels", 8, 16, "--attention-levels"),
    *("--norm-groups", 4, "--epochs", 2, "--checkpoint-every", 1, "--batch-size", 10),
    *("--sample-count", 2, "--sample-steps", 2, "--ema-decay", 0.9, "--output"),
)
COMMANDS = {
    "train": (*TRAIN, "NEW"),
    "train --record": (*TRAIN, "NEW", "--record", "--sketch-size", 300),
    "generate": ("generate", "RUN", "--count", 2, "--steps", 3),
    "index": ("index", "RUN", "--sketch-size", 300),
    "attribute": ("attribute", "RUN", "--queries", "train:2", *SMALL, *BOTH),
    "attribute generated": ("attribute", "RUN", "--queries", "generated:2", *SMALL, *BOTH),
    "attribute by features": (
        *("attribute", "RUN", "--queries", "train:2", "--methods", "kernel-retrac", "d-trak"),
        *("--draws", "small", "--layer-numbers", 16),
    ),
    "attribute by curvature": (
        *("attribute", "RUN", "--queries", "train:2", "--methods", "ekfac", "adam", *SMALL),
    ),
    "attribute --index": (
        *(
            "attribute",
            "INDEXED",
            "--queries",
            "train:2",
            "--index",
            "--exact-top",
            3,
            *SMALL,
            *BOTH,
        ),
    ),
    "replay": ("replay", "RUN", "--from-epoch", 2, "--without", "label=3", "--output", "NEW"),
    "evaluate": ("evaluate", "RUN", "--queries", "train:2", *SMALL, *BOTH, "--moved", 2),
    "removal": (
        *("removal", "RUN", "--attribution", "SCORED", "--k", 2, "--random-draws", 1),
        *("--loss-timesteps", 1, "--loss-noises", 1),
    ),
    "benchmark": ("benchmark", "--run", "NEW", *SMALL),
    "lds prepare": ("lds", "prepare", "RUN", "--queries", "train:1", "--subsets", 2),
    "outliers": ("outliers", "RUN", "--samples", 4, *SMALL),
    "norms": ("norms", "RUN", "--timesteps", 3, "--samples", 4),
}


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is to do."""
    for module in (costs, of_training):
        monkeypatch.setattr(module, "PASSES", 0)
    monkeypatch.setattr(estimates, "PROBE_SECONDS", 0)


def listing(folder: Path) -> dict[str, int]:
    """When each file was written; of folders, that they are there."""
    return {
        str(path.relative_to(folder)): 0 if path.is_dir() else path.stat().st_mtime_ns
        for path in folder.rglob("*")
    }


DONE = (
    ("attribute", "RUN", "--queries", "train:1", *SMALL, *BOTH),
    ("attribute", "RUN", "--queries", "generated:1", *SMALL, *BOTH),
    ("outliers", "RUN", "--samples", 2, *SMALL),
    ("index", "RUN", "--sketch-size", 300),
)


@pytest.fixture(scope="module")
def done(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory, retrac: Command) -> Path:
    """A copy of the tiny run for which `DONE` is done. Not to be changed."""
    run = Path(shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("done") / "run"))
    for command in DONE:
        assert retrac(*placed(command, run)).code == 0
    return run


def placed(command: tuple[object, ...], run: Path) -> list[object]:
    """The command, for a run in this folder."""
    scores = run / "attributions" / "train-1-tracin-retrac"
    places = {"RUN": run, "INDEXED": run, "NEW": run.with_name("new"), "SCORED": scores}
    return [places.get(str(word), word) for word in command]


@pytest.fixture(params=COMMANDS.values(), ids=COMMANDS)
def command(
    request: pytest.FixtureRequest, tiny_run: Run, done: Path, tmp_path: Path
) -> list[object]:
    """Each command, for a run of its own, which has what the command asks for."""
    run = done if {"INDEXED", "SCORED"} & {*request.param} else tiny_run.path
    return placed(request.param, Path(shutil.copytree(run, tmp_path / "own")))


def test_a_dry_run_leaves_nothing_behind(
    command: list[object], retrac: Command, tmp_path: Path
) -> None:
    before, numbers = listing(tmp_path), torch.get_rng_state()
    told = retrac(*command, "--dry-run")
    assert told.code == 0, told.err
    assert listing(tmp_path) == before
    assert torch.equal(torch.get_rng_state(), numbers)
    assert told.out == ""
    assert told.err.startswith("about ") and told.err.count("\n") == 1
    assert "of memory" in told.err and "on disk" in told.err


def test_a_disk_that_is_too_small_is_refused_before_the_start(
    command: list[object], refusal: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, usage = listing(tmp_path), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(estimates.shutil, "disk_usage", lambda path: usage._replace(free=1))
    assert "on disk, and less than 1 MB are free" in str(refusal(*command))
    assert listing(tmp_path) == before


def test_weights_are_the_same_bits_after_an_estimate(retrac: Command, tmp_path: Path) -> None:
    output, plain = tmp_path / "told", tmp_path / "quiet"
    assert retrac(*TRAIN, output).err.startswith("about ")
    config = replace(Run.open(output).config)
    train(config, plain)
    for epoch in ("epoch-0001", "epoch-0002"):
        one, other = (weights(path / "checkpoints" / epoch) for path in (output, plain))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_scores_are_the_same_bits_after_an_estimate(
    retrac: Command, own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("attribute", own_run, "--queries", "train:2", *SMALL, *BOTH, "--output")
    assert retrac(*command, tmp_path / "told").err.startswith("about ")
    monkeypatch.setattr(costs, "PASSES", 10**9)
    assert not retrac(*command, tmp_path / "quiet").err.startswith("about ")
    one, other = (Attribution.open(tmp_path / name) for name in ("told", "quiet"))
    assert np.array_equal(one.contributions, other.contributions)


def test_work_that_is_done_needs_nothing(retrac: Command, done: Path) -> None:
    for command in DONE:
        told = retrac(*placed(command, done), "--dry-run")
        assert told.code == 0 and told.err.startswith("no estimate: little is left")


def test_what_will_be_refused_is_refused_at_once(
    retrac: Command, refusal: Command, done: Path
) -> None:
    for command in DONE[:3]:
        other = (*placed(command, done), "--plan-seed", 1, "--dry-run")
        assert "plan_seed was 0, now 1" in str(refusal(*other))


def test_passes_of_a_large_network_are_not_few(
    retrac: Command, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of 256 images may take minutes: what would be short in such passes is estimated."""
    monkeypatch.setattr(costs, "PASSES", 4)
    for command in (
        ("attribute", own_run, "--queries", "train:2", *SMALL, *BOTH),
        ("outliers", own_run, "--samples", 4, *SMALL),
        ("norms", own_run, "--timesteps", 8, "--samples", 8),
        ("index", own_run, "--sketch-size", 300, *BOTH),
    ):
        monkeypatch.setattr(costs, "SHORT", 2)
        assert retrac(*command, "--dry-run").err.startswith("about ")
        monkeypatch.setattr(costs, "SHORT", 64)
        assert retrac(*command, "--dry-run").err.startswith("no estimate")


def test_only_what_is_missing_is_counted(own_run: Path) -> None:
    done = of_training.StepsLeft.of(TINY, 24, 9)
    whole = of_training.StepsLeft.of(TINY, 24, 0)
    assert done.visits == whole.visits / 2
    assert (whole.checkpoints, done.checkpoints) == (3, 2)


def test_an_index_or_a_recording_of_other_settings_is_refused_at_once(
    retrac: Command, refusal: Command, done: Path, tmp_path: Path
) -> None:
    own_run = Path(shutil.copytree(done, tmp_path / "own"))
    recorded, size = tmp_path / "recorded", "--sketch-size"
    assert retrac(*TRAIN, recorded, "--record", size, 300).code == 0
    assert retrac(*TRAIN, tmp_path / "plain").code == 0
    before = listing(tmp_path)
    for command, told in (
        (("index", own_run, size, 400), "sketch_size was 300, now 400"),
        (("index", own_run, size, 300, "--checkpoints", 2), "checkpoints was [2, 4, 6], now [2]"),
        ((*TRAIN, recorded), "is being recorded: give --record"),
        ((*TRAIN, recorded, "--record", size, 400), "sketch_size was 300, now 400"),
        ((*TRAIN, tmp_path / "plain", "--record"), "was begun without --record"),
    ):
        assert told in str(refusal(*command, "--dry-run"))
        assert told in str(refusal(*command))
    assert listing(tmp_path) == before
