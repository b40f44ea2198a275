"""What metrics find, as plain values."""

import math
from pathlib import Path

import pytest

from retrac.errors import RetracError
from retrac.evaluation.section import Section
from retrac.files import read_json, write_json
from retrac.interval import Interval

ROWS = {
    "retrac": {"ROC AUC": Interval(0.9, 0.8, 1.0), "rank": Interval(3.0, 2.0, 5.0)},
    "random": {"ROC AUC": Interval(0.5, float("nan"), float("nan"))},
}


def test_a_section_survives_a_file(tmp_path: Path) -> None:
    section = Section.of("Tracing", "Does it?", lambda: ROWS)
    write_json(tmp_path / "found.json", section.to_json())
    again = Section.from_json(read_json(tmp_path / "found.json"))
    assert again.measures == ("ROC AUC", "rank")
    assert again.rows["retrac"] == ROWS["retrac"]
    assert again.rows["random"]["ROC AUC"].value == 0.5
    assert math.isnan(again.rows["random"]["ROC AUC"].low)


def test_what_a_metric_refuses_is_a_note() -> None:
    def refuse() -> dict[str, dict[str, Interval]]:
        raise RetracError("it needs labels")

    assert Section.of("Tracing", "Does it?", refuse).note == "it needs labels"


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        Section.of("Tracing", "Does it?", lambda: {"a": {"b": Interval(1 / 0, 0, 0)}})
