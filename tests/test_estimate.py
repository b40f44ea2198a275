"""Estimates on constructed numbers; nothing here depends on how fast the machine is."""

import errno
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from retrac import estimate as estimates
from retrac.attribution.costs import Costs
from retrac.attribution.estimate import distinct
from retrac.attribution.parts import Left
from retrac.errors import RetracError
from retrac.estimate import (
    Estimate,
    refuse_full_disk,
    scratch,
    seconds_of,
    standing,
    told_bytes,
    told_time,
)
from retrac.files import write_whole
from retrac.training.estimate import StepCosts, StepsLeft, training_needs
from tiny import tiny


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.1, "1 s"),
        (7.4, "7 s"),
        (119, "119 s"),
        (150, "2.5 min"),
        (2400, "40 min"),
        (3 * 3600, "3.0 h"),
        (5 * 86400, "5.0 days"),
    ],
)
def test_seconds_as_people_say_them(seconds: float, told: str) -> None:
    assert told_time(seconds) == told


@pytest.mark.parametrize(
    ("amount", "told"),
    [(1000, "less than 1 MB"), (310 * 2**20, "310 MB"), (int(1.2 * 2**30), "1.2 GB")],
)
def test_bytes_as_people_say_them(amount: int, told: str) -> None:
    assert told_bytes(amount) == told


def test_an_estimate_is_one_line() -> None:
    told = str(Estimate(240, int(1.2 * 2**30), 310 * 2**20))
    assert told == "about 4.0 min, 1.2 GB of memory, 310 MB on disk"


def test_one_after_the_other_adds_time_and_space_and_takes_the_larger_memory() -> None:
    assert Estimate(1, 5, 10) + Estimate(2, 4, 20) == Estimate(3, 5, 30)


def test_the_first_time_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 0.8, 1, 1.2, 2, 2.4, 3, 3.6])
    monkeypatch.setattr(estimates, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert seconds_of(lambda: None) == pytest.approx(0.4)


def test_what_takes_long_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, done = iter([0, 30]), []
    monkeypatch.setattr(estimates, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert seconds_of(lambda: done.append(1)) == 30
    assert done == [1]


def test_a_disk_that_is_too_small_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=200 * 2**20)

    monkeypatch.setattr(estimates.shutil, "disk_usage", usage)
    output = tmp_path / "not/there"
    refuse_full_disk(Estimate(1, 1, 200 * 2**20), output)
    with pytest.raises(RetracError, match="will need 201 MB on disk, and 200 MB are free"):
        refuse_full_disk(Estimate(1, 1, 201 * 2**20), output)
    assert asked == [tmp_path, tmp_path]


def test_a_disk_that_fills_while_measuring_names_the_output(tmp_path: Path) -> None:
    output = tmp_path / "not/there"
    full = pytest.raises(RetracError, match=f"^no space left to write {output}: ")
    with full, scratch(output) as folder, write_whole(folder / "weights"):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(ValueError, match="another"), scratch(output):
        raise ValueError("another")
    assert not list(tmp_path.iterdir())


def test_the_folder_above_that_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert standing(tmp_path / "a/b") == tmp_path
    assert standing(tmp_path / "file/b") == tmp_path
    assert standing(tmp_path) == tmp_path


def test_costs_times_what_is_left() -> None:
    assert Costs(checkpoint=10, draw=2, visit=0.5).seconds(Left(3, 100, 40)) == 250


@pytest.mark.parametrize(
    ("lists", "expected"), [(1, 100), (2, 190), (1000, 1000)], ids=["one", "two", "many"]
)
def test_candidates_of_lists_that_have_nothing_in_common(lists: int, expected: int) -> None:
    assert distinct(1000, 100, lists) == expected
    assert distinct(50, 100, lists) == 50


def test_what_is_left_of_a_training() -> None:
    config = tiny(epochs=5, checkpoint_every=2, batch_size=10)  # 24 samples: 10, 10, 4
    assert StepsLeft.of(config, 24, 0) == StepsLeft(120, 3, 48)  # after 2, 4 and 5 epochs
    assert StepsLeft.of(config, 24, 6) == StepsLeft(72, 2, 48)
    assert StepsLeft.of(config, 24, 8) == StepsLeft(52, 2, 48)
    assert StepsLeft.of(config, 24, 15) == StepsLeft(0, 0, 48)


COSTS = StepCosts(visit=0.1, checkpoint=5, state=2, checkpoint_bytes=1000, state_bytes=600)


def test_a_training_with_checkpoints_close_together() -> None:
    needs = training_needs(StepsLeft(visits=1000, checkpoints=2, interval=500), COSTS, memory=9)
    assert needs == Estimate(100 + 10, 9, 2000)


def test_a_training_that_saves_states_between_checkpoints() -> None:
    needs = training_needs(StepsLeft(visits=2000, checkpoints=2, interval=1000), COSTS, memory=9)
    assert needs == Estimate(200 + 10 + 3 * 2, 9, 2600)


@pytest.mark.parametrize(("state", "disk"), [(600, 2600), (5000, 1000 + 2 * 5000)])
def test_a_state_is_deleted_once_the_next_is_whole(state: int, disk: int) -> None:
    """Before the last checkpoint there are two, if there are several between checkpoints."""
    costs = replace(COSTS, state_bytes=state)
    needs = training_needs(StepsLeft(visits=4000, checkpoints=2, interval=2000), costs, memory=9)
    assert needs == Estimate(400 + 10 + 6 * 2, 9, disk)
