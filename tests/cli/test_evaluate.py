"""`retrac evaluate` and `retrac benchmark`: from a run to tables."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrac.attribution.queries import open_queries
from retrac.attribution.self_influence import SelfInfluence
from retrac.data.arrays import write_npz
from retrac.data.config import DatasetConfig, PlantConfig
from retrac.data.planting import with_outliers
from retrac.evaluation.baselines import NAMES
from retrac.evaluation.config import RetrainingConfig
from retrac.evaluation.retraining import Retraining
from retrac.evaluation.shipped import Shipped
from retrac.training.loop import train
from retrac.training.run import Run
from tiny import tiny

from .conftest import BOTH, Command, Told

Refusal = Callable[..., str]
SMALL = ("--plan-timesteps", 2, "--plan-noises", 2)
ASK = ("--queries", "each:1+generated:1", *SMALL, *BOTH, "--moved", 4, "--moved-queries", 2)
EVALUATED = Path("attributions") / "each-1-generated-1-seed-0-tracin-retrac"


def sections_of(file: Path) -> dict[str, Any]:
    """What is in an `evaluation.json`, by the names of metrics."""
    return {section["name"]: section for section in json.loads(file.read_text())["sections"]}


@pytest.fixture(scope="module")
def evaluated(
    tiny_run: Run, tmp_path_factory: pytest.TempPathFactory, retrac: Command
) -> tuple[Path, Told]:
    """A copy of the tiny run, evaluated, and what the command said. Not to be changed."""
    run = Path(shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("evaluated") / "run"))
    return run, retrac("evaluate", run, *ASK)


@pytest.fixture
def own_evaluated(evaluated: tuple[Path, Told], tmp_path: Path) -> Path:
    """The folder of a copy, for a test to change."""
    return Path(shutil.copytree(evaluated[0], tmp_path / "evaluated"))


def test_every_metric_speaks_or_says_why_not(
    evaluated: tuple[Path, Told], own_evaluated: Path, retrac: Command
) -> None:
    told = evaluated[1]
    assert told.code == 0, told.err
    folder = own_evaluated / EVALUATED
    sections = sections_of(folder / "evaluation.json")
    assert list(sections) == [
        *("Tracing", "Tracing by group", "Targeting", "Bias of norms", "Intervention"),
        "Outliers",
        "Linear datamodelling score",
    ]
    for name in ("Tracing", "Targeting", "Bias of norms"):
        assert list(sections[name]["rows"]) == [
            *("tracin", "retrac", "random", "pixels", "patches", "training loss", "gradient norm"),
        ]
        assert (folder / f"{name.lower().replace(' ', '-')}.png").is_file()
    assert "no planted outliers" in sections["Outliers"]["note"]
    assert "retrac lds prepare" in sections["Linear datamodelling score"]["note"]
    assert "no planted outliers" in told.out
    nearest = sections["Tracing"]["rows"]["pixels"]["rank of itself"]
    assert nearest["value"] == 1  # nothing is nearer to a training image than itself
    page = (folder / "report.html").read_text()
    assert "How far to believe it" in page and "Bias of norms" in page
    (folder / "report.html").unlink()
    assert retrac("report", folder).code == 0
    assert "How far to believe it" in (folder / "report.html").read_text()


def test_a_second_call_opens_the_scores_and_finds_the_same(
    evaluated: tuple[Path, Told], own_evaluated: Path, retrac: Command
) -> None:
    run = evaluated[0]
    file = own_evaluated / EVALUATED / "evaluation.json"
    file.unlink()
    told = retrac("evaluate", own_evaluated, *ASK)
    assert told.code == 0
    first = (run / EVALUATED / "evaluation.json").read_text()
    assert file.read_text() == first.replace(str(run), str(own_evaluated))


def test_what_other_commands_found_stays(own_evaluated: Path, retrac: Command) -> None:
    folder = own_evaluated / EVALUATED
    found = json.loads((folder / "evaluation.json").read_text())
    found["sections"].append({**found["sections"][0], "name": "Removal"})
    (folder / "evaluation.json").write_text(json.dumps(found))
    assert retrac("evaluate", own_evaluated, *ASK).code == 0
    again = json.loads((folder / "evaluation.json").read_text())["sections"]
    assert [section["name"] for section in again][-1] == "Removal" and len(again) == 8
    (folder / "evaluation.json").write_text("{}")
    assert retrac("evaluate", own_evaluated, *ASK).code == 2


def test_what_was_found_is_not_overwritten_by_nothing(own_run: Path, retrac: Command) -> None:
    file = own_run / "attributions" / "train-2-tracin-retrac" / "evaluation.json"
    ask = (
        "evaluate",
        own_run,
        "--queries",
        "train:2",
        *SMALL,
        *BOTH,
        "--moved-queries",
        1,
        "--moved",
    )
    assert retrac(*ask, 4).code == 0
    found = file.read_text()
    told = retrac(*ask, 0)
    assert told.code == 0 and "--moved is 0" in told.out
    assert file.read_text() == found and sections_of(file)["Intervention"]["rows"]


def test_distinct_lists_of_unlabelled_queries_are_read_with_care(
    own_run: Path, retrac: Command
) -> None:
    ask = ("evaluate", own_run, *SMALL, *BOTH, "--moved", 0, "--queries")
    for queries, cautious in (("generated:2", True), ("train:2", False)):
        assert retrac(*ask, queries).code == 0
        folder = queries.replace(":", "-") + ("-seed-0" if cautious else "") + "-tracin-retrac"
        found = sections_of(own_run / "attributions" / folder / "evaluation.json")["Targeting"]
        assert found["rows"] and ("Not all queries have a label" in found["note"]) == cautious


@pytest.mark.parametrize("methods", [("kernel-retrac", "tracin"), ("kernel-retrac",)])
def test_methods_that_compare_features_are_evaluated_beside_others_and_alone(
    methods: tuple[str, ...], own_run: Path, retrac: Command
) -> None:
    few = ("--draws", "small", "--layer-numbers", 8, "--moved", 4, "--moved-queries", 2)
    told = retrac("evaluate", own_run, "--queries", "train:3", *SMALL, "--methods", *methods, *few)
    assert told.code == 0, told.err
    (file,) = (own_run / "attributions").glob("*/evaluation.json")
    sections = sections_of(file)
    moved = sections["Intervention"]
    if "tracin" in methods:
        assert "tracin" in json.dumps(moved) and "kernel-retrac" not in json.dumps(moved)
    else:
        assert "no method here adds up events" in json.dumps(moved)
        assert "no method here adds up events" in json.dumps(sections["Bias of norms"])
    assert "kernel-retrac" in json.dumps(sections["Targeting"])


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 digits and 6 images of noise. Attributions may be added."""
    folder = tmp_path_factory.mktemp("planted")
    data = DatasetConfig(dataset="digits", resolution=8, limit=24)
    write_npz(with_outliers(data, PlantConfig("noise", count=6)), folder / "noisy.npz")
    return train(tiny(data=DatasetConfig(dataset=str(folder / "noisy.npz"))), folder / "run").path


@pytest.mark.parametrize("way", [(), ("--index", "--exact-top", 3)])
def test_planted_outliers_are_looked_for(
    way: tuple[object, ...], planted_run: Path, tmp_path: Path, retrac: Command
) -> None:
    if way:
        sketches = ("--sketch-size", 300, "--checkpoints", 2, 4, *BOTH)
        assert retrac("index", planted_run, *sketches).code == 0
    options = ("--queries", "train:2", "--checkpoints", 2, 4, *SMALL, *BOTH, "--moved", 0, *way)
    told = retrac("evaluate", planted_run, *options, "--output", tmp_path / "scores")
    assert told.code == 0, told.err
    found = sections_of(tmp_path / "scores" / "evaluation.json")["Outliers"]["rows"]
    assert list(found) == [
        *("retrac", "tracin", "random", "pixels", "training loss", "gradient norm")
    ]
    for measures in found.values():
        assert 0 <= measures["ROC AUC"]["value"] <= 1
    assert found["pixels"]["ROC AUC"]["value"] == 1.0  # noise is like no digit
    (own,) = (planted_run / "self-influence").iterdir()  # the same for all queries and ways
    assert SelfInfluence.open(own).dataset["checkpoint"].values.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--k", 0), "--k must be at least 1"),
        (("--moved", -1), "--moved must be at least 0"),
        (("--queries", "each:0"), "at least one"),
        (("--queries", "every:2"), "neither generated:N"),
    ],
)
def test_nonsense_is_refused(
    options: tuple[object, ...], told: str, tiny_run: Run, refusal: Refusal
) -> None:
    assert told in refusal("evaluate", tiny_run.path, *options)


def small_benchmark(run: Run, path: Path) -> Shipped:
    config = RetrainingConfig(8, 2, loss_timesteps=2, loss_noises=2)
    retraining = Retraining.planned(run, open_queries(run, "train:2+generated:2"), config, path)
    retraining.begin()
    stream = np.random.default_rng(0)
    for model in retraining.models:
        losses = path / "losses" / f"{model.name}.json"
        losses.parent.mkdir(exist_ok=True)
        losses.write_text(json.dumps({"losses": stream.random(4).tolist()}))
    return Shipped.of(retraining)


def test_a_method_is_put_to_the_benchmark(
    tiny_run: Run,
    tmp_path: Path,
    retrac: Command,
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = small_benchmark(tiny_run, tmp_path / "lds")
    monkeypatch.setattr(Shipped, "load", staticmethod(lambda name: shipped))
    # Scores that foretell the measured losses as well as linear ones can.
    centred = shipped.subsets - shipped.subsets.mean(0)
    measured = -(shipped.losses.mean(1) - shipped.losses.mean((0, 1)))
    np.save(tmp_path / "own.npy", np.linalg.lstsq(centred, measured, rcond=None)[0].T)
    run, output = tmp_path / "run", tmp_path / "found.json"
    given = ("--run", run, "--scores", tmp_path / "own.npy", "--output", output, *SMALL)
    told = retrac("benchmark", "--method", "retrac", *given)
    assert told.code == 0, told.err
    assert "training images" in told.out and "generated" in told.out
    found = json.loads(output.read_text())["lds"]
    assert set(found) == {*NAMES, "retrac", "own"}
    assert found["own"]["value"] == pytest.approx(1.0)
    seconds = output.stat().st_mtime_ns
    told = retrac("benchmark", "--method", "retrac", *given, "--dry-run")
    assert told.code == 0 and told.out == "" and output.stat().st_mtime_ns == seconds
    again = retrac("benchmark", "--method", "retrac", *given)
    assert again.code == 0 and json.loads(output.read_text())["lds"] == found
    (tmp_path / "own.npy").rename(tmp_path / "pixels.npy")
    assert "called 'pixels', too" in refusal("benchmark", "--scores", tmp_path / "pixels.npy")
    (tmp_path / "b").mkdir()
    twice = (tmp_path / "own.npy", tmp_path / "b" / "own.npy")
    assert "called 'own', too" in refusal("benchmark", "--scores", *twice)


def test_an_unknown_method_is_refused_before_any_training(tmp_path: Path, refusal: Refusal) -> None:
    assert "unknown method 'nonsense'" in refusal(
        "benchmark", "--method", "nonsense", "--run", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_the_benchmark_trains_nothing(tmp_path: Path, retrac: Command) -> None:
    told = retrac("benchmark", "--run", tmp_path / "run", "--dry-run")
    assert told.code == 0 and told.err.startswith("about ") and not (tmp_path / "run").exists()


def test_an_unfinished_truth_is_not_packed(tiny_run: Run, tmp_path: Path) -> None:
    from retrac.errors import RetracError

    shipped_folder = tmp_path / "lds"
    small_benchmark(tiny_run, shipped_folder)
    next((shipped_folder / "losses").iterdir()).unlink()
    with pytest.raises(RetracError, match="not finished"):
        Shipped.of(Retraining.open(tiny_run, shipped_folder))


def test_a_run_folder_of_the_user_s_own_is_not_touched(own_run: Path, refusal: Refusal) -> None:
    before = sorted(own_run.rglob("*"))
    assert refusal("benchmark", "--run", own_run)
    assert sorted(own_run.rglob("*")) == before
