"""Input that is wrong: one line that says what and with what, exit code 2, nothing lost."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from retrac.attribution.attribution import Attribution
from retrac.training.run import Run
from tiny import weights

from .conftest import BOTH, Command

Refusal = Callable[..., str]
SMALL = ("--plan-timesteps", "2", "--plan-noises", "2")
TRAIN = (
    *("train", "--limit", 24, "--resolution", 8, "--channels", 8, 16, "--attention-levels"),
    *("--norm-groups", 4, "--epochs", 2, "--checkpoint-every", 1, "--batch-size", 10),
    *("--sample-count", 0, "--output"),
)


def test_unknown_names_come_with_the_nearest_one(refusal: Refusal, tmp_path: Path) -> None:
    told = refusal(*TRAIN, tmp_path / "run", "--dataset", "digitz")
    assert told.startswith("unknown dataset 'digitz': did you mean 'digits'?")
    told = refusal("attribute", tmp_path, "--queries", "train:1", "--methods", "retrack")
    assert told.startswith("unknown method 'retrack': did you mean 'retrac'?")
    told = refusal("outliers", tmp_path, "--method", "trac")
    assert told.startswith("unknown method 'trac': did you mean")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "RUN"),
        ("attribute", "RUN", "--queries", "train:1"),
        ("outliers", "RUN"),
        ("norms", "RUN"),
    ],
    ids=lambda command: command[0],
)
def test_runs_that_are_not_there_half_written_or_damaged(
    command: tuple[str, ...], refusal: Refusal, own_run: Path, tmp_path: Path
) -> None:
    def told(run: Path) -> str:
        return refusal(*(run if word == "RUN" else word for word in command))

    assert told(tmp_path / "none") == f"no run at {tmp_path / 'none'}: the folder does not exist"
    for state in own_run.glob("checkpoints/*/state.json"):
        state.rename(state.with_suffix(".json.partial"))
    assert told(own_run) == f"{own_run} has no whole checkpoint yet; let `retrac train` finish"
    (own_run / "run.json").write_text('{"config"')
    assert "run.json cannot be read as JSON" in told(own_run)
    (own_run / "run.json").unlink()
    assert "it has no run.json; train one" in told(own_run)


@pytest.mark.parametrize("command", ["attribute", "outliers", "norms"])
def test_a_dataset_that_has_changed(command: str, refusal: Refusal, own_run: Path) -> None:
    record = json.loads((own_run / "run.json").read_text())
    record["dataset"]["fingerprint"] = "0" * 64
    (own_run / "run.json").write_text(json.dumps(record))
    options = ("--queries", "train:1") if command == "attribute" else ()
    assert "the dataset 'digits' has changed since" in refusal(command, own_run, *options)


@pytest.mark.parametrize("command", ["generate", "attribute", "outliers", "norms"])
def test_a_damaged_checkpoint_is_named(command: str, refusal: Refusal, own_run: Path) -> None:
    for path in (own_run / "checkpoints/epoch-0006").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:500])
    options = ("--queries", "train:1") if command == "attribute" else ()
    told = refusal(command, own_run, *options)
    assert "epoch-0006" in told and "damaged" in told


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (Image.new("L", (9, 8)), "q.png is 9x8 pixels, but 8x8 are needed"),
        (Image.new("RGB", (8, 8), "red"), "q.png is in colour, but greyscale is needed"),
        (None, "cannot read the image"),
    ],
    ids=["size", "channels", "corrupt"],
)
def test_query_images_that_do_not_fit(
    image: Image.Image | None, told: str, refusal: Refusal, own_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "q.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n half an image")
    if image is not None:
        image.save(path)
    line = refusal("attribute", own_run, "--queries", path)
    assert told in line and str(path) in line
    assert not (own_run / "attributions").exists()


@pytest.mark.parametrize(
    ("queries", "told"),
    [
        ("generated:0", "ask for at least one"),
        ("train:25", "the training set has only 24 samples"),
        ("train:3,24", "there is no sample 24"),
        ("trian:3", "neither generated:N, trajectory:N, train:N"),
        ("train:-1", "neither generated:N, trajectory:N, train:N"),
        ("/nowhere/at/all", "neither generated:N, trajectory:N, train:N"),
    ],
)
def test_queries_that_are_none(queries: str, told: str, refusal: Refusal, own_run: Path) -> None:
    assert told in refusal("attribute", own_run, "--queries", queries)


def test_an_image_of_the_training_set_that_is_broken(refusal: Refusal, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "fine.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    told = refusal(*TRAIN, tmp_path.with_name("run"), "--dataset", f"{tmp_path}/")
    assert told.startswith("cannot read the image") and "broken.png" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--epochs", 0), "--epochs must be at least 1, not 0"),
        (("--batch-size", -1), "--batch-size must be at least 1, not -1"),
        (("--learning-rate", "nan"), "--learning-rate must be above 0 and at most 1e+30, not nan"),
        (("--learning-rate", -1), "--learning-rate must be above 0 and at most 1e+30, not -1"),
        (("--max-grad-norm", 0), "--max-grad-norm must be above 0"),
        (("--timesteps", 0), "--timesteps must be at least 1"),
        (("--seed", -1), "--seed must be in [0, 2^63), not -1"),
        (("--channels", 8, 9), "--norm-groups 4 does not divide"),
        (("--channels", 8, 8, 8, 8, 8), "8x8 cannot be halved 4 times"),
        (("--limit", 0), "--limit must be at least 1"),
        (("--resolution", -8), "--resolution must be at least 1"),
        (("--channels", 8_000_000, 16_000_000), "out of memory: lower"),
        (("--pretrained", "/nowhere"), "/nowhere holds no diffusers model"),
    ],
    ids=str,
)
def test_numbers_that_make_no_training(
    options: tuple[object, ...], told: str, refusal: Refusal, tmp_path: Path
) -> None:
    assert told in refusal(*TRAIN, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("generate", "RUN", "--count", 0), "--count must be at least 1"),
        (("generate", "RUN", "--steps", 51), "--steps 1 to 50"),
        (("generate", "RUN", "--checkpoint", 3), "no checkpoint after epoch 3: there are 2, 4, 6"),
        (("attribute", "RUN", "--queries", "train:1", "--checkpoints", 5), "no checkpoint after"),
        (("attribute", "RUN", "--queries", "train:1", "--replay", 0), "--replay must be last"),
        (("attribute", "RUN", "--queries", "train:1", "--plan-noises", 0), "--plan-noises must"),
        (("attribute", "RUN", "--queries", "train:1", "--memory-budget", "9"), "write it like"),
        (("attribute", "RUN", "--queries", "train:1", "--memory-budget", "1KB"), "too small for"),
        (("attribute", "RUN", "--queries", "train:1", "--methods"), "--methods is empty"),
        (
            ("attribute", "RUN", "--queries", "generated:1", "--query-seed", -1),
            "seed of generated images must be at least 0, not -1",
        ),
        (("generate", "RUN", "--count", 1, "--output", "x" * 300), "the name is too long"),
        (("outliers", "RUN", "--checkpoints", 5), "no checkpoint after epoch 5"),
        (("outliers", "RUN", "--samples", 0), "--samples must be at least 1"),
        (("outliers", "RUN", "--memory-budget", "1KB"), "too small for this network"),
        (("norms", "RUN", "--sample", 24), "there is no sample 24"),
        (("norms", "RUN", "--sample", -1), "there is no sample -1"),
        (("norms", "RUN", "--timesteps", 0), "--timesteps and --samples must be at least 1"),
        (("norms", "RUN", "--samples", -1), "--timesteps and --samples must be at least 1"),
        (("norms", "RUN", "--checkpoints", 5), "no checkpoint after epoch 5"),
        (("report", "RUN"), "is not an attribution"),
        (("report", "/nowhere"), "/nowhere is not an attribution"),
    ],
    ids=str,
)
def test_numbers_and_names_that_nothing_has(
    command: tuple[object, ...], told: str, refusal: Refusal, own_run: Path
) -> None:
    assert told in refusal(*(own_run if word == "RUN" else word for word in command))


def test_names_that_are_too_long(refusal: Refusal, tmp_path: Path) -> None:
    assert "the name is too long" in refusal(*TRAIN, tmp_path / ("x" * 300))


def test_train_needs_a_place(refusal: Refusal) -> None:
    assert refusal("train") == "train needs --output, the run folder to write"


def test_a_learning_rate_that_explodes(refusal: Refusal, tmp_path: Path) -> None:
    options = ("--learning-rate", "1e30", "--optimizer", "sgd")
    told = refusal(*TRAIN, tmp_path / "run", *options)
    assert "weights broke" in told and "lower --learning-rate" in told and "epoch 1" in told


def poison(checkpoint: Path) -> None:
    """Put NaN where it only shows in gradients, not in the loading."""
    path = checkpoint / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.bias"][:] = torch.nan
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("attribute", "RUN", "--queries", "train:1,2", *SMALL, *BOTH), "digits/0001"),
        (("outliers", "RUN", *SMALL), "digits/0000"),
        (("norms", "RUN", "--sample", 5), "digits/0005"),
    ],
    ids=["attribute", "outliers", "norms"],
)
def test_a_gradient_that_is_not_finite_names_image_and_checkpoint(
    command: tuple[object, ...], named: str, refusal: Refusal, own_run: Path
) -> None:
    poison(own_run / "checkpoints/epoch-0004")
    told = refusal(*(own_run if word == "RUN" else word for word in command))
    assert "is not finite" in told and named in told and "epoch-0004" in told


def test_what_was_computed_before_an_error_is_used_again(
    refusal: Refusal, retrac: Command, own_run: Path, tmp_path: Path
) -> None:
    sound = shutil.copytree(own_run / "checkpoints/epoch-0004", tmp_path / "sound")
    command = ("attribute", own_run, "--queries", "train:2", *SMALL, *BOTH, "--output")
    assert retrac(*command, tmp_path / "at once").code == 0
    poison(own_run / "checkpoints/epoch-0004")
    refusal(*command, tmp_path / "result")
    kept = sorted(path.name for path in (tmp_path / "result.parts").glob("epoch-0002-*"))
    assert kept
    shutil.copytree(sound, own_run / "checkpoints/epoch-0004", dirs_exist_ok=True)
    assert retrac(*command, tmp_path / "result").code == 0
    assert not (tmp_path / "result.parts").exists()
    one, other = (Attribution.open(tmp_path / name) for name in ("at once", "result"))
    assert np.array_equal(one.contributions, other.contributions)


@pytest.mark.parametrize("command", ["train", "generate", "attribute", "outliers", "norms"])
def test_a_file_where_the_output_should_be_is_left_alone(
    command: str, refusal: Refusal, own_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("precious")
    options = {
        "train": TRAIN[1:-1],
        "generate": (own_run, "--count", 1, "--steps", 2),
        "attribute": (own_run, "--queries", "train:1", *SMALL, *BOTH),
        "outliers": (own_run, "--samples", 2, *SMALL),
        "norms": (own_run, "--timesteps", 2, "--samples", 2),
    }[command]
    for place in (tmp_path / "out", tmp_path / "out/within"):
        assert str(tmp_path / "out") in refusal(command, *options, "--output", place)
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize("command", ["train", "attribute", "outliers"])
def test_a_folder_of_other_things_is_left_alone(
    command: str, refusal: Refusal, own_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("precious")
    options = {
        "train": TRAIN[1:-1],
        "attribute": (own_run, "--queries", "train:1", *SMALL, *BOTH),
        "outliers": (own_run, "--samples", 2, *SMALL),
    }[command]
    assert str(tmp_path / "out") in refusal(command, *options, "--output", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "permission denied; choose another folder"),
        (errno.EROFS, "permission denied; choose another folder"),
        (errno.ENOSPC, "no space left to write"),
    ],
)
@pytest.mark.parametrize("command", ["train", "generate", "attribute", "outliers", "norms"])
def test_folders_that_cannot_be_written(
    command: str,
    number: int,
    told: str,
    refusal: Refusal,
    own_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root may write everywhere, so the system's refusal is played."""
    makes = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.is_relative_to(tmp_path / "closed"):
            raise OSError(number, os.strerror(number), str(path))
        makes(path, *arguments, **options)

    options = {
        "train": TRAIN[1:-1],
        "generate": (own_run, "--count", 1, "--steps", 2),
        "attribute": (own_run, "--queries", "train:1", *SMALL, *BOTH),
        "outliers": (own_run, "--samples", 2, *SMALL),
        "norms": (own_run, "--timesteps", 2, "--samples", 2),
    }[command]
    monkeypatch.setattr(Path, "mkdir", refuse)
    line = refusal(command, *options, "--output", tmp_path / "closed/out")
    assert told in line and str(tmp_path / "closed") in line


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], int]]]:
    """A disk of its own, and a function to change its size; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.system(
        f"mount -t tmpfs -o size=1m tmpfs {folder} 2>/dev/null"
    ):
        pytest.skip("cannot mount a small disk here")
    yield folder, lambda size: os.system(f"mount -o remount,size={size} {folder}")
    os.system(f"umount -l {folder}")  # lazily: a traceback may hold a file of it open


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No estimate beforehand, which would refuse what these tests want to see break."""
    monkeypatch.setattr("retrac.training.estimate.PASSES", 10**6)
    monkeypatch.setattr("retrac.attribution.costs.PASSES", 10**6)


@pytest.mark.usefixtures("unmeasured")
def test_a_disk_that_is_full_while_training(
    disk: tuple[Path, Callable[[str], int]], refusal: Refusal, retrac: Command, tmp_path: Path
) -> None:
    """It holds one checkpoint, not two. With more space, the same command ends the training."""
    folder, resize = disk
    told = refusal(*TRAIN, folder / "run")
    assert told.startswith(f"no space left to write {folder / 'run'}")
    [first] = Run.open(folder / "run").checkpoints
    assert first.epoch == 1 and not list(folder.rglob("*.partial"))
    resize("8m")
    assert retrac(*TRAIN, folder / "run").code == 0
    assert retrac(*TRAIN, tmp_path / "elsewhere").code == 0
    expected = weights(tmp_path / "elsewhere/checkpoints/epoch-0002")
    reached = weights(folder / "run/checkpoints/epoch-0002")
    assert all(torch.equal(reached[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("unmeasured")
def test_a_disk_that_is_full_while_attributing(
    disk: tuple[Path, Callable[[str], int]], refusal: Refusal, retrac: Command, own_run: Path
) -> None:
    folder, resize = disk
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(1000 * 1024))
    command = (
        "attribute",
        own_run,
        "--queries",
        "train:2",
        *SMALL,
        *BOTH,
        "--output",
        folder / "result",
    )
    told = refusal(*command)
    assert told.startswith("no space left to write") and str(folder) in told
    assert ballast.stat().st_size == 1000 * 1024
    resize("8m")
    assert retrac(*command).code == 0
    assert Attribution.open(folder / "result").scores.shape == (2, 2, 24)
