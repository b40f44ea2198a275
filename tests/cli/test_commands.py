"""Every command, on a tiny run, from training to the report."""

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from retrac.attribution.attribution import Attribution
from retrac.attribution.methods import methods
from retrac.training.replaying import ReplayedRun
from retrac.training.run import Run
from retrac.training.trained import TrainedRun

from .conftest import BOTH, Command

COMMANDS = (
    "datasets",
    "methods",
    "train",
    "generate",
    "attribute",
    "layers",
    "outliers",
    "norms",
    "replay",
    "report",
    "explain",
)
SMALL = ("--plan-timesteps", "2", "--plan-noises", "2")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, retrac: Command) -> None:
    told = retrac(*command.split(), "--help")
    assert told.code == 0 and "usage: retrac" in told.out
    if not command:
        assert all(name in told.out for name in COMMANDS)


def test_starting_costs_no_torch() -> None:
    """`--help` and mistyped options should not take seconds."""
    code = "import sys, retrac.cli.main as m; print({'torch', 'diffusers'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_datasets_lists_them(retrac: Command) -> None:
    told = retrac("datasets")
    assert told.code == 0
    assert all(name in told.out for name in ("digits", "photos-zeros", "cifar10", "artbench-2"))


def test_help_shows_the_settings_of_a_named_dataset(retrac: Command) -> None:
    plain, known = retrac("train", "--help").out, retrac("train", "--dataset=cifar10", "--help").out
    assert "(default: clipped-cosine)" in known and "(default: clipped-cosine)" not in plain
    assert "(default: cifar10)" in retrac("train", "--dataset", "cifar10", "--help").out


def test_train(retrac: Command, tmp_path: Path) -> None:
    """As the README has it, but for a network of the smallest size."""
    command = (
        *("train", "--dataset", "digits", "--output", tmp_path / "run", "--limit", 12),
        *("--resolution", 8, "--channels", 8, 16, "--attention-levels", "--norm-groups", 4),
        *("--epochs", 2, "--checkpoint-every", 1, "--batch-size", 8, "--learning-rate", "1e-3"),
        *("--seed", 3, "--optimizer", "sgd", "--momentum", 0.9, "--sample-count", 0, "--flip"),
    )
    told = retrac(*command)
    assert told.code == 0, told.err
    assert told.out.startswith(f"{tmp_path / 'run'}: 2 checkpoints")
    config = Run.open(tmp_path / "run").config
    assert (config.epochs, config.seed, config.flip, config.batch_size) == (2, 3, True, 8)
    assert config.model.channels == (8, 16) and config.model.attention_levels == ()
    assert config.optimisation.momentum == 0.9
    again = retrac(*command)
    assert again.code == 0 and again.out == told.out


def test_generate(retrac: Command, own_run: Path, tmp_path: Path) -> None:
    told = retrac("generate", own_run, "--count", 3, "--seed", 1, "--steps", 3)
    assert told.code == 0
    folder = own_run / "generated/seed-1"
    assert sorted(path.name for path in folder.iterdir()) == ["0000.png", "0001.png", "0002.png"]
    assert str(folder.with_name("seed-1-sheet.png")) in told.out
    told = retrac("generate", own_run, "--output", tmp_path / "out", "--steps", 3, "--eta", 0.5)
    assert told.code == 0 and len(list((tmp_path / "out").iterdir())) == 16


@pytest.fixture(scope="module")
def images(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two images of the right size."""
    folder = tmp_path_factory.mktemp("images")
    for name, pixels in zip("ab", tiny_run.dataset.images, strict=False):
        Image.fromarray(pixels[0]).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    ("queries", "ids", "name"),
    [
        ("generated:2", "generated/seed-0/0001", "generated-2-seed-0"),
        ("train:2", "digits/0012", "train-2"),
        ("train:5,17", "digits/0017", "train-5-17"),
        ("PATH", "b.png", "images"),
        ("PATH/a.png", "a.png", "a"),
    ],
)
def test_attribute_and_report(
    queries: str, ids: str, name: str, own_run: Path, images: Path, retrac: Command
) -> None:
    named = images.rename(images.with_name("images")) if images.name != "images" else images
    told = retrac(
        "attribute", own_run, "--queries", queries.replace("PATH", str(named)), *SMALL, *BOTH
    )
    named.rename(images)
    assert told.code == 0, told.err
    folder = own_run / "attributions" / f"{name}-tracin-retrac"
    result = Attribution.open(folder)
    assert ids in result.dataset["query_id"].values
    assert result.scores.shape == (2, 1 if name == "a" else 2, 24)
    assert f"query 0, {result.dataset['query_id'].values[0]}: taught most by" in told.out
    assert f"report: {folder / 'report.html'}" in told.out
    assert "<html" in (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    told = retrac("report", folder, "--k", 3)
    assert told.code == 0 and told.out.strip() == str(folder / "report.html")
    assert (folder / "report.html").is_file()


def test_every_way_to_score_has_a_folder_of_its_own(retrac: Command, own_run: Path) -> None:
    """The commands of the README, one after another."""
    assert retrac("index", own_run, "--sketch-size", 300, *BOTH).code == 0
    ask = ("attribute", own_run, "--queries", "train:1", *SMALL, *BOTH)
    ways = ((), ("--index",), ("--index", "--exact-top", 3), ("--plan", "fast"), ("--replay", 2))
    for way in ways:
        told = retrac(*ask, *way)
        assert told.code == 0, told.err
    assert sorted(path.name for path in (own_run / "attributions").iterdir()) == [
        f"train-1-{way}"
        for way in (
            *("fast-tracin-retrac", "index-tracin-retrac", "index-tracin-retrac-exact-3"),
            *("replay-2-tracin-retrac", "tracin-retrac"),
        )
    ]


def test_weights_of_layers_are_learnt_on_some_queries_and_used_on_others(
    retrac: Command, own_run: Path, tmp_path: Path
) -> None:
    folder, weights = own_run / "attributions", tmp_path / "weights.json"
    told = retrac("attribute", own_run, "--queries", "train:2", *SMALL, *BOTH, "--by-layer")
    assert told.code == 0, told.err
    told = retrac("layers", folder / "train-2-tracin-retrac-by-layer", "--output", weights)
    assert told.code == 0, told.err
    assert "ReTrac: what parts of the network add to the first 10" in told.out
    assert "down_blocks.0" in told.out and f"weights: {weights}" in told.out
    some = ("--queries", "train:5", *SMALL, *BOTH, "--layer-weights", weights)
    assert retrac("attribute", own_run, *some).code == 0
    found = Attribution.open(folder / "train-5-tracin-retrac-weights-weights")
    assert set(found.config["layer_weights"]) == {"tracin", "retrac"}


def test_who_chooses_no_methods_gets_three(retrac: Command, own_run: Path) -> None:
    few = ("--draws", "small", "--layer-numbers", 8)
    told = retrac("attribute", own_run, "--queries", "train:1", *SMALL, *few)
    assert told.code == 0, told.err
    assert all(title in told.out for title in ("Kernel ReTrac", "ReTrac", "TracIn"))
    found = Attribution.open(own_run / "attributions/train-1-small-8")
    assert found.methods == ("kernel-retrac", "retrac", "tracin")


def test_attribute_tells_how_sure_it_is(retrac: Command, own_run: Path) -> None:
    ask = ("attribute", own_run, "--queries", "train:2", "--methods", "retrac", *SMALL)
    told = retrac(*ask)
    assert "±" in told.out and told.out.count("of these 10") == 2  # of each query
    assert "A repeat with other random draws would show" in told.out
    alone = retrac(*ask, "--checkpoints", 6, "--output", own_run / "alone")
    assert alone.code == 0 and "±" not in alone.out
    assert "No errors: a single checkpoint shows no error" in alone.out


def test_the_first_method_answers_in_full_and_the_others_briefly(
    retrac: Command, own_run: Path
) -> None:
    told = retrac("attribute", own_run, "--queries", "train:4", *SMALL, *BOTH)
    result = Attribution.open(own_run / "attributions/train-4-tracin-retrac")
    full, brief = told.out.split("ReTrac tells")
    for query in range(3):
        assert all(entry.id in full for entry in result.proponents(query, "tracin"))
    assert "query 3" not in full and "The report has the lists of 1 more." in full
    first = ", ".join(f"{e.id} ({e.label})" for e in result.proponents(0, "retrac", 3))
    assert f"query 0: {first} and 7 more." in brief
    for name in ("tracin", "retrac"):
        assert methods()[name].estimand[1:] in told.out


def test_methods_are_listed_with_what_they_tell(retrac: Command) -> None:
    told = " ".join(retrac("methods").out.split())
    for method in methods().values():
        assert f"{method.name}: {method.title}" in told
        assert method.estimand[1:] in told and method.foretold in told and method.source in told


@pytest.mark.parametrize("command", ["attribute", "benchmark"])
def test_help_names_the_methods(command: str, retrac: Command) -> None:
    told = retrac(command, "--help").out
    assert all(name in told for name in methods())


def test_attribute_until(retrac: Command, own_run: Path) -> None:
    ask = ("attribute", own_run, "--queries", "train:2", "--methods", "retrac", *SMALL, "--until")
    told = retrac(*ask, 0.01)
    assert told.code == 0, told.err
    folder = own_run / "attributions/train-2-retrac-until-0.01"
    assert f"report: {folder / 'report.html'}" in told.out
    assert "ended after 1 round: repeatable enough; repeatability retrac 0." in told.out
    told = retrac(*ask, 0.99, "--until-minutes", 0.001)
    assert told.code == 0 and "0.001 min are over" in told.out
    assert "of the first:" in retrac(*ask, 0.9, "--dry-run").err
    assert retrac(*ask, 95).code == 2


def test_attribute_does_what_its_options_say(
    retrac: Command, own_run: Path, tmp_path: Path
) -> None:
    command = (
        *("attribute", own_run, "--queries", "train:1", "--methods", "retrac", *SMALL),
        *("--checkpoints", 4, 6, "--replay", "all", "--output", tmp_path / "result"),
        *("--memory-budget", "1GB", "--device", "cpu"),
    )
    told = retrac(*command)
    assert told.code == 0, told.err
    result = Attribution.open(tmp_path / "result")
    assert result.methods == ("retrac",)
    assert result.dataset["checkpoint"].values.tolist() == [4, 6]
    assert result.dataset.sizes["visit"] == 4 and result.dataset.sizes["timestep"] == 2
    assert retrac(*command).code == 0  # what is there is opened


def test_a_named_plan_is_recorded_by_its_numbers(
    retrac: Command, own_run: Path, tmp_path: Path
) -> None:
    command = ("attribute", own_run, "--queries", "train:1", *BOTH, "--output", tmp_path / "result")
    told = retrac(*command, "--plan", "published", *SMALL)
    assert told.code == 0, told.err
    config = Attribution.open(tmp_path / "result").config
    assert (config["plan_timesteps"], config["plan_noises"]) == (2, 2)
    assert (config["plan_spacing"], config["plan_noise"]) == ("ends", "independent")
    assert retrac(*command, "--plan", "fast").code == 2  # other draws, the same place


def test_outliers(retrac: Command, own_run: Path) -> None:
    told = retrac("outliers", own_run, "--method", "tracin", "--samples", 4, "--top", 3, *SMALL)
    assert told.code == 0, told.err
    assert "largest self-influence by tracin" in told.out
    assert (own_run / "outliers/top-tracin.png").is_file()
    with (own_run / "outliers/ranked-tracin.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert len(rows) == 4 and scores == sorted(scores, reverse=True)


def test_norms(retrac: Command, own_run: Path) -> None:
    told = retrac("norms", own_run, "--sample", 3, "--timesteps", 5, "--samples", 6)
    assert told.code == 0, told.err
    for path in told.out.split():
        assert Path(path).is_file() and Path(path).parent == own_run / "norms/sample-0003"


def test_replay(retrac: Command, tiny_run: TrainedRun, tmp_path: Path) -> None:
    ids, path = tiny_run.dataset.ids, tmp_path / "weights.csv"
    path.write_text(f"id,weight\n{ids[5]},0.5\n")
    told = retrac(
        *("replay", tiny_run.path, "--from-epoch", 4, "--output", tmp_path / "replay"),
        *("--without", f"id:{ids[0]},{ids[1]}", "--weights", path),
    )
    assert told.code == 0, told.err
    assert told.out == (
        f"{tmp_path / 'replay'}: epochs 5 to 6 of {tiny_run.path} again, without 2 of 24 samples\n"
    )
    found = Run.open(tmp_path / "replay")
    assert isinstance(found, ReplayedRun)
    assert found.sample_weights.values.tolist() == [0, 0, 1, 1, 1, 0.5, *[1] * 18]
    assert retrac("generate", found.path, "--count", 1, "--steps", 2).code == 0


def test_python_m_retrac() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "retrac", "report", "/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2 and told.stdout == ""
    assert told.stderr.startswith("retrac: /nowhere") and told.stderr.count("\n") == 1


def test_ctrl_c_while_training_exits_130(
    retrac: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrac.training import loop

    monkeypatch.setattr(loop, "stop_requests", _always)
    told = retrac("train", "--output", tmp_path / "run", "--limit", 8, "--batch-size", 4)
    assert told.code == 130
    assert "retrac: stopped after step 1 of 80; the same command goes on" in told.err
    assert json.loads(next((tmp_path / "run/state").glob("*/state.json")).read_text())["step"] == 1


def test_ctrl_c_elsewhere_exits_130(
    retrac: Command, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "open", interrupted)
    told = retrac("norms", own_run)
    assert told.code == 130 and told.err.startswith("retrac: stopped; what was saved is whole")


class _always:  # noqa: N801
    def __init__(self, enabled: bool) -> None:
        pass

    def __enter__(self) -> object:
        return lambda: True

    def __exit__(self, *error: object) -> None:
        pass


def test_the_package_runs_as_a_module_as_accelerate_launch_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["retrac", "datasets"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("retrac", run_name="__main__", alter_sys=True)
    assert end.value.code == 0 and "photos-zeros" in capsys.readouterr().out
