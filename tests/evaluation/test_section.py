"""What metrics find, as plain values."""

import json

import pytest

from retrac.errors import RetracError
from retrac.evaluation.bootstrap import Interval
from retrac.evaluation.section import Section

ROWS = {
    "retrac": {"ROC AUC": Interval(0.9, 0.8, 1.0), "rank": Interval(3.0, 2.0, 5.0)},
    "random": {"ROC AUC": Interval(0.5, float("nan"), float("nan"))},
}


def test_a_section_survives_json() -> None:
    section = Section.of("Tracing", "Does it?", lambda: ROWS)
    again = Section.from_json(json.loads(json.dumps(section.to_json())))
    assert again.measures == ("ROC AUC", "rank")
    assert again.rows["retrac"] == ROWS["retrac"]
    assert again.rows["random"]["ROC AUC"].value == 0.5


def test_what_a_metric_refuses_is_a_note() -> None:
    def refuse() -> dict[str, dict[str, Interval]]:
        raise RetracError("it needs labels")

    assert Section.of("Tracing", "Does it?", refuse).note == "it needs labels"


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        Section.of("Tracing", "Does it?", lambda: {"a": {"b": Interval(1 / 0, 0, 0)}})
