"""Results as tables in the terminal."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from retrac.attribution.attribution import FIRST, Attribution
from retrac.attribution.ranking import Ranked
from retrac.attribution.uncertainty import NO_ERROR
from retrac.evaluation.interval import Interval
from retrac.evaluation.lds import Ceiling, Lds
from retrac.evaluation.section import Section
from retrac.report.evaluation import brief, oriented
from retrac.report.wording import error, exponent, method_name, power, signed

QUERIES = 8
"""Queries that are printed; the report has them all."""
WIDTH = 110
"""Of metrics' tables, where the terminal does not tell."""


def print_proponents(result: Attribution, queries: Sequence[str], k: int = 5) -> None:
    """Print the first proponents of the first queries, by method; with errors, if there are any."""
    table = Table(
        "query",
        *map(method_name, result.methods),
        box=None,
        header_style="bold",
        title="proponents",
    )
    for query, name in enumerate(queries[:QUERIES]):
        table.add_row(name, *(_proponents(result, query, method, k) for method in result.methods))
    Console(width=max(WIDTH, Console().width)).print(table)


def print_certainty(result: Attribution) -> None:
    """Print how sure lists are, a line for each method: means over queries."""
    data = result.dataset
    if "error" not in data:
        Console(soft_wrap=True).print(f"no errors: {NO_ERROR}", highlight=False)
        return
    first, queries = min(FIRST, data.sizes["sample"]), data.sizes["query"]
    for method in result.methods:
        if method not in result.sure:
            continue
        certain, repeatability, halves = (
            float(data[name].sel({"method": method}).mean())
            for name in ("certain", "repeatability", "halves")
        )
        over = f" (means over {queries} queries)" if queries > 1 else ""
        Console(soft_wrap=True).print(
            f"{method}: certain {certain:.1f} of {first}; a repeat would give "
            f"{first * repeatability:.1f} of {first} again; rank correlation of halves "
            f"{halves:.2f}{over}",
            highlight=False,
        )


def print_events(result: Attribution) -> None:
    """Print where the events come from, if not from training."""
    if events := result.config.get("run", {}).get("events"):
        print(f"events: {events}")


def print_reached(result: Attribution) -> None:
    """Print what ended the rounds of `--until`, if there were any."""
    reached, until = (result.config.get(name) for name in ("reached", "until"))
    if not reached or not until:
        return
    rounds = f"{reached['rounds']} round{'s' if reached['rounds'] > 1 else ''}"
    ended = "repeatable enough" if reached["enough"] else f"{reached['minutes']:g} min are over"
    told = ", ".join(f"{method} {share:.2f}" for method, share in reached["repeatability"].items())
    Console(soft_wrap=True).print(
        f"ended after {rounds}: {ended}; repeatability {told} (asked for {until['share']:g})",
        highlight=False,
    )


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
        table.add_row("(upper bound)", f"{ceiling.of_the_mean:.3f}", "")
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
        table.add_row("(upper bound)", f"{ceiling.of_the_mean:.3f}")
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


def _proponents(result: Attribution, query: int, method: str, k: int) -> str:
    entries = result.proponents(query, method, k)
    if "error" not in result.dataset:
        return ", ".join(map(_named, entries))
    errors = result.dataset["error"].sel({"method": method}).values[query]
    if np.isnan(errors).all():
        return "\n".join(map(_named, entries))
    unit = exponent(entry.score for entry in entries)
    return "\n".join(
        f"{_named(e)}  {signed(e.score, unit)} {error(float(errors[e.sample]), unit)} {power(unit)}"
        for e in entries
    )


def _named(entry: Ranked) -> str:
    return f"{entry.id} ({entry.label})" if entry.label else entry.id
