"""`retrac attribute --methods unrolled`."""

from collections.abc import Callable
from pathlib import Path

from .conftest import Command

SMALL = ("--plan-timesteps", "2", "--plan-noises", "2")
UNROLLED = ("--queries", "train:2", "--methods", "unrolled", *SMALL)


def test_its_first_line_says_whether_it_can_be_believed(own_run: Path, retrac: Command) -> None:
    ahead = retrac("attribute", own_run, *UNROLLED, "--from-epoch", 4, "--dry-run")
    assert ahead.code == 0 and ahead.err.startswith("about ")
    assert not (own_run / "replays").exists()
    told = retrac("attribute", own_run, *UNROLLED, "--from-epoch", 4)
    assert told.code == 0, told.err
    first = told.out.splitlines()[0]
    assert first.startswith("This can be believed: epochs 4 to 6 were replayed 20 times")
    assert (own_run / "attributions" / "train-2-unrolled-from-4" / "report.html").is_file()
    again = retrac("attribute", own_run, *UNROLLED, "--from-epoch", 4)
    assert again.code == 0 and again.out == told.out and "replay" not in again.err


def test_refusals(own_run: Path, refusal: Callable[..., str]) -> None:
    assert "say by --from-epoch" in refusal("attribute", own_run, *UNROLLED)
    assert "--from-epoch can be 0, 2, 4" in refusal(
        "attribute", own_run, *UNROLLED, "--from-epoch", 5
    )
    assert "--until does not go with unrolled" in refusal(
        "attribute", own_run, *UNROLLED, "--from-epoch", 4, "--until", 0.9
    )
    bank = own_run / "replays" / "epoch-0004-0006"
    bank.mkdir(parents=True)
    (bank / "mine.txt").write_text("mine")
    assert "holds something else: move it away" in refusal(
        "attribute", own_run, *UNROLLED, "--from-epoch", 4
    )
