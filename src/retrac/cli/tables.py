"""Results as tables in the terminal."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from retrac.attribution.attribution import FIRST, Attribution
from retrac.attribution.methods import DEFAULT, methods
from retrac.attribution.ranking import Ranked
from retrac.attribution.uncertainty import NO_ERROR
from retrac.evaluation.lds import Ceiling, Lds
from retrac.evaluation.section import Section
from retrac.interval import Interval
from retrac.report.content import gate
from retrac.report.evaluation import brief, oriented
from retrac.report.wording import continued, error, exponent, method_name, power, signed, sure

QUERIES = 3
"""Queries whose lists are printed; the report has them all."""
BRIEF = 3
"""Entries of a list that is told briefly."""
WIDTH = 110
"""Of metrics' tables, where the terminal does not tell."""


def print_methods() -> None:
    """Print all methods: what each one tells, how well, and where it is from."""
    console = Console(soft_wrap=True, highlight=False)
    for method in methods().values():
        usual = ", one of the usual ones" if method.name in DEFAULT else ""
        console.print(f"[bold]{method.name}[/bold]: {method.title}{usual}")
        tells, source = f"It tells {continued(method.estimand)}", f"From: {method.source}."
        formula = method.formula and f"Score: {method.formula}."
        for line in filter(None, (tells, method.foretold, formula, source)):
            console.print(Padding(line, (0, 0, 0, 4)), soft_wrap=False)


def print_answer(result: Attribution) -> None:
    """Print the first method's lists for the first queries, and how sure each of them is."""
    method, count = result.methods[0], result.dataset.sizes["query"]
    console = Console(soft_wrap=True, highlight=False)
    for line in gate(result, method):
        console.print(f"[bold]{line}[/bold]")
    console.print(f"[bold]{method_name(method)}[/bold]{_tells(method)}")
    for query in range(min(QUERIES, count)):
        console.print()
        console.print(_list(result, query, method))
        console.print(_how_sure(result, query, method))
    if count > QUERIES:
        console.print(f"\nThe report has the lists of {count - QUERIES} more.")


def print_others(result: Attribution) -> None:
    """Print briefly what the other methods say: a few first samples, and how sure lists are."""
    console = Console(soft_wrap=True, highlight=False)
    for method in result.methods[1:]:
        entries = result.proponents(0, method, FIRST)
        first = ", ".join(map(_named, entries[:BRIEF]))
        more = f" and {len(entries) - BRIEF} more" if len(entries) > BRIEF else ""
        console.print(f"\n[bold]{method_name(method)}[/bold]{_tells(method)}")
        for line in gate(result, method):
            console.print(line)
        console.print(f"query 0: {first}{more}. {_how_sure(result, 0, method)}")


def print_layers(result: Attribution, method: str, weights: Mapping[str, float], top: int) -> None:
    """Print what each group of layers adds to the first of each list, and its weight.

    Args:
        result: scores by layer.
        method: one of its methods.
        weights: by group.
        top: length of the lists.
    """
    layers, scores = result.layers(method).values, result.scores_of(method).values
    first = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    each = np.take_along_axis(layers, first[None], 2).sum(2)  # [L, Q]
    total = each.sum()
    shares = each.sum(1) / (total if total else 1)
    title = f"{method_name(method)}: what parts of the network add to the first {top}"
    table = Table("part", title=title, title_justify="left")
    table.add_column("share", justify="right")
    table.add_column("weight that makes lists stand out", justify="right")
    for (name, weight), share in zip(weights.items(), shares, strict=True):
        table.add_row(escape(name), f"{share:.0%}", f"{weight:.2f}")
    Console(highlight=False).print(table)


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


def _tells(method: str) -> str:
    if method not in methods():
        return ""
    told = methods()[method]
    return f" tells {continued(told.estimand)} {told.foretold}".rstrip()


def _list(result: Attribution, query: int, method: str) -> Table:
    name = str(result.dataset["query_id"].values[query])
    entries = result.proponents(query, method, FIRST)
    unit = exponent(entry.score for entry in entries)
    table = Table(
        *("", "sample", "label", f"score ({power(unit)})"),
        box=None,
        header_style="bold",
        title=escape(f"query {query}, {name}: taught most by"),
        title_justify="left",
    )
    errors = _errors(result, query, method)
    for entry in entries:
        told = "" if errors is None else f" {error(float(errors[entry.sample]), unit)}"
        table.add_row(
            f"{entry.rank}.",
            escape(entry.id),
            escape(entry.label),
            signed(entry.score, unit) + told,
        )
    return table


def _errors(result: Attribution, query: int, method: str) -> np.ndarray | None:
    if method not in result.sure or "error" not in result.dataset:
        return None
    return np.asarray(result.dataset["error"].sel({"method": method}).values[query])


def _how_sure(result: Attribution, query: int, method: str) -> str:
    """In a sentence, of the first of one list."""
    if result.window(method) is not None:
        return ""  # the gate has said it
    if _errors(result, query, method) is None:
        return f"No errors: {NO_ERROR}."
    certain, repeatability = (
        float(result.dataset[name].sel({"method": method}).values[query])
        for name in ("certain", "repeatability")
    )
    return sure(int(certain), repeatability, min(FIRST, result.dataset.sizes["sample"]))


def _named(entry: Ranked) -> str:
    return escape(f"{entry.id} ({entry.label})" if entry.label else entry.id)
