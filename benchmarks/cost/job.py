"""What a whole job costs, added up from what its parts were measured to cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.cost.measure import Cost
from benchmarks.cost.report import Measured, number

COLUMNS = ("minutes", "times faster")
QUERIES, SAMPLES, CHECKPOINTS = 16, 1000, 4
PUBLISHED, DEFAULT = 100 * 16, 20 * 8
"""Draws of a query's plan; the two rank alike (docs/performance-plans.md)."""


@dataclass(frozen=True)
class Way:
    """One way to do the job.

    Attributes:
        title: in the table.
        draws: of each query at each checkpoint.
        query: row with the cost of a draw.
        sample: row with the cost of a sample.
        is_blocked: whether samples are passed over again for each block of queries that fits.
    """

    title: str
    draws: int
    query: str
    sample: str
    is_blocked: bool = False

    def steps(self, measured: Measured) -> float | None:
        """Samples of plain training steps that take as long; None if a part was not measured."""
        query, sample = (measured.costs.get(row) for row in (self.query, self.sample))
        if not (isinstance(query, Cost) and isinstance(sample, Cost)):
            return None
        blocks = ceil(QUERIES / measured.network.queries) if self.is_blocked else 1
        queries = QUERIES * self.draws * median(query.ratios)
        return CHECKPOINTS * (queries + blocks * SAMPLES * median(sample.ratios))


NAIVE = Way("naive loop, published plan", PUBLISHED, "naive-query", "naive")
WAYS = (
    NAIVE,
    Way("naive loop, default plan", DEFAULT, "naive-query", "naive"),
    Way("ours, exact, published plan", PUBLISHED, "ours-query", "ours", is_blocked=True),
    Way("ours, exact, default plan", DEFAULT, "ours-query", "ours", is_blocked=True),
    Way("ours, indexed, default plan", DEFAULT, "ours-sketch", "ours-sketch"),
)


def job_table(measured: list[Measured]) -> Table:
    """Minutes of each way on each network, and how many times faster it is than the naive loop."""
    shown = Table(
        title=f"{QUERIES} queries, {SAMPLES} samples, {CHECKPOINTS} checkpoints: "
        "minutes, added up from the costs above"
    )
    shown.add_column("")
    for each in measured:
        shown.add_column(f"{each.network.name}\nminutes", justify="right")
        shown.add_column("\n× faster", justify="right")
    jobs = job_content(measured)
    for title in dict.fromkeys(title for job in jobs.values() for title in job):
        cells = []
        for job in jobs.values():
            cost = job.get(title, {})
            cells += [number(cost[name]) if name in cost else "–" for name in COLUMNS]
        shown.add_row(title, *cells)
    return shown


def job_content(measured: list[Measured]) -> dict[str, Any]:
    """The same, for the JSON file: of the ways whose parts were measured."""
    return {
        each.network.name: {
            way.title: dict(zip(COLUMNS, _cost(each, steps), strict=False))
            for way in WAYS
            if (steps := way.steps(each)) is not None
        }
        for each in measured
    }


def _cost(measured: Measured, steps: float) -> Iterator[float]:
    """Minutes, and how many times faster than the naive loop, where that was measured."""
    yield steps * measured.plain / 60
    naive = NAIVE.steps(measured)
    if naive is not None:
        yield naive / steps
