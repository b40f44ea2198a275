"""Results as tables in the terminal."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from retrac.evaluation.bootstrap import Interval
from retrac.evaluation.lds import Ceiling, Lds
from retrac.evaluation.section import Section
from retrac.influence.attribution import Attribution
from retrac.influence.ranking import Ranked
from retrac.report.evaluation import brief, oriented

QUERIES = 8
"""Queries that are printed; the report has them all."""
WIDTH = 110
"""Of metrics' tables, where the terminal does not tell."""


def print_proponents(result: Attribution, queries: Sequence[str], k: int = 5) -> None:
    """Print the first proponents of the first queries, by method."""
    table = Table("query", *result.methods, box=None, header_style="bold", title="proponents")
    for query, name in enumerate(queries[:QUERIES]):
        table.add_row(
            name, *(", ".join(map(_entry, result.proponents(query, m, k))) for m in result.methods)
        )
    Console().print(table)


def print_ranked(entries: Sequence[Ranked], title: str) -> None:
    """Print samples with their scores."""
    table = Table("rank", "sample", "label", "score", box=None, header_style="bold", title=title)
    for entry in entries:
        table.add_row(str(entry.rank), entry.id, entry.label, f"{entry.score:.4g}")
    Console().print(table)


def print_lds(found: Mapping[str, Interval], ceiling: Ceiling | None, subsets: int) -> None:
    """Print methods by their linear datamodelling score, best first, and the ceiling above them."""
    table = Table(
        *("method", "LDS", "90 % interval"),
        box=None,
        header_style="bold",
        title=f"linear datamodelling score over {subsets} subsets",
    )
    if ceiling is not None:
        table.add_row("(perfect scores)", f"{ceiling.of_the_mean:.3f}", "")
        table.add_row("(models of another seed)", *_told(ceiling.between_seeds))
    for method, interval in sorted(found.items(), key=lambda item: -item[1].value):
        table.add_row(method, *_told(interval))
    Console().print(table)


def print_benchmark(metric: Lds, kinds: Mapping[str, np.ndarray]) -> None:
    """Print methods by their score on the benchmark, best first: of all queries, and by kind."""
    found = metric.compute()
    by_kind = [metric.compute(rows) for rows in kinds.values()]
    table = Table(
        *("method", "LDS", "90 % interval", *kinds),
        box=None,
        header_style="bold",
        title=f"linear datamodelling score over {len(metric.subsets)} subsets",
    )
    ceiling = metric.ceiling()
    if ceiling is not None:
        table.add_row("(perfect scores)", f"{ceiling.of_the_mean:.3f}")
        table.add_row("(models of another seed)", *_told(ceiling.between_seeds))
    for method, interval in sorted(found.items(), key=lambda item: -item[1].value):
        table.add_row(method, *_told(interval), *(f"{kind[method].value:.3f}" for kind in by_kind))
    Console().print(table)


def print_section(section: Section) -> None:
    """Print what a metric found, or why it makes no sense."""
    if not section.rows:
        Console().print(f"[bold]{section.name}[/bold]: {section.note}", highlight=False)
        return
    heads, lines = oriented(section)
    table = Table(
        "", *heads, box=None, header_style="bold", title_justify="left", title=section.name
    )
    for name, values in lines:
        table.add_row(name, *map(brief, values))
    Console(width=max(WIDTH, Console().width)).print(table, section.note)


def _told(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _entry(entry: Ranked) -> str:
    return f"{entry.id} ({entry.label})" if entry.label else entry.id
