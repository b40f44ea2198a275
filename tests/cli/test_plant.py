"""`retrac plant`: from a dataset to a run on its planted copy."""

from collections.abc import Callable
from pathlib import Path

from retrac.data.planting import planted
from retrac.training.run import Run

from .conftest import Command

SMALL = ("--resolution", 8, "--limit", 30)


def test_the_planted_copy_is_trained_on(retrac: Command, tmp_path: Path) -> None:
    output = tmp_path / "planted.npz"
    told = retrac("plant", "--dataset", "digits", *SMALL, "--count", 7, "--output", output)
    assert told.code == 0, told.err
    assert told.out.strip() == (
        f"{output}: 37 samples, of these planted: 3 other, 2 noise, 2 normalisation"
    )
    told = retrac(
        *("train", "--dataset", output, "--channels", 8, "--attention-levels", "--norm-groups", 4),
        *(
            "--layers-per-block",
            1,
            "--epochs",
            1,
            "--sample-count",
            0,
            "--output",
            tmp_path / "run",
        ),
    )
    assert told.code == 0, told.err
    found = Run.open(tmp_path / "run").dataset
    assert len(found) == 37 and planted(found.ids).sum() == 7 and found.labels is not None


def test_what_cannot_be_planted_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    output = tmp_path / "planted.npz"
    plant = ("plant", "--dataset", "digits", *SMALL)
    assert "must end in .npz" in refusal(*plant, "--output", tmp_path / "planted")
    assert "--count must be below 30" in refusal(*plant, "--count", 30, "--output", output)
    assert "has not: lower --count, or choose another --other" in refusal(
        *plant, "--kind", "other", "--count", 5, "--other", "digits", "--output", output
    )
    assert not list(tmp_path.iterdir())
    output.touch()
    assert "exists; choose another --output" in refusal(*plant, "--output", output)
