"""What a metric found, as plain values: for tables, JSON, figures and pages."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retrac.errors import RetracError
from retrac.interval import Interval

Rows = Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True)
class Section:
    """One metric.

    Attributes:
        name: of the metric.
        about: what it asks, in one or two sentences.
        rows: method -> measure -> value; empty where the metric makes no sense.
        note: why it makes none, or what else is to be known.
    """

    name: str
    about: str
    rows: Rows = field(default_factory=dict)
    note: str = ""

    @staticmethod
    def of(name: str, about: str, found: Callable[[], Rows], note: str = "") -> "Section":
        """Compute; what a metric refuses becomes its note, in place of the given one."""
        try:
            return Section(name, about, found(), note)
        except RetracError as error:
            return Section(name, about, note=str(error))

    @property
    def measures(self) -> tuple[str, ...]:
        """Those that some method has, in the order in which they come."""
        return tuple(dict.fromkeys(name for row in self.rows.values() for name in row))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Section":
        """Read what `to_json` wrote."""
        rows = {
            method: {measure: Interval.from_json(value) for measure, value in row.items()}
            for method, row in content["rows"].items()
        }
        return Section(content["name"], content["about"], rows, content["note"])
