"""`retrac report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from retrac.errors import RetracError


@dataclass(frozen=True)
class Report:
    """Write the report of an attribution: one HTML file that needs no network."""

    attribution: tyro.conf.Positional[Path]
    """The folder that `retrac attribute` wrote."""
    k: int = 10
    """Proponents and opponents per query, at most 20."""
    output: Path | None = None
    """The file to write. Default: report.html in the attribution's folder."""

    def __call__(self) -> None:
        """Write it and say where it is."""
        from retrac.attribution.attribute import SHOWN
        from retrac.attribution.attribution import Attribution
        from retrac.report.evaluation import read_sections
        from retrac.report.page import write_report

        if not 1 <= self.k <= SHOWN:
            raise RetracError(f"--k must be from 1 to {SHOWN}, not {self.k}")
        path = self.output or self.attribution / "report.html"
        result, sections = Attribution.open(self.attribution), read_sections(self.attribution)
        print(write_report(result, path, self.k, sections))
