"""What metrics found, as a JSON file, figures, and a part of the report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from retrac.attribution.methods import methods as all_methods
from retrac.errors import RetracError
from retrac.evaluation.section import Section
from retrac.files import read_json, write_json
from retrac.interval import Interval
from retrac.report.canvas import INK, head, save_png, svg_uri
from retrac.report.wording import method_name

NUMBERS = "evaluation.json"
COLUMNS = 4
FEW = 3
"""Measures that stand side by side."""
BASELINE = "#8a8f96"
METHOD = "#3f8fa8"


@dataclass(frozen=True)
class Part:
    """A metric's part of the page.

    Attributes:
        section: what it found.
        heads: of the table's columns.
        table: its rows, each with a name.
        uri: of its figure; empty without one.
    """

    section: Section
    heads: Sequence[str]
    table: Sequence[tuple[str, Sequence[str]]]
    uri: str


def write_sections(sections: Sequence[Section], folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write `evaluation.json`, and a figure of each metric; returns the path of the former.

    Metrics that are not among them, or say now why they find nothing, stay as they were before.

    Args:
        sections: what metrics found.
        folder: of the scores.
        settings: how these came about.
    """
    before = {section.name: section for section in read_sections(folder)}
    sections = [
        section if section.rows else before.get(section.name, section) for section in sections
    ]
    names = {section.name for section in sections}
    others = [section for name, section in before.items() if name not in names]
    for section in sections:
        if section.rows:
            save_png(measures(section), folder / f"{section.name.lower().replace(' ', '-')}.png")
    told = [section.to_json() for section in (*sections, *others)]
    write_json(folder / NUMBERS, {"settings": settings, "sections": told})
    return folder / NUMBERS


def read_sections(folder: Path) -> list[Section]:
    """Read what `write_sections` wrote; nothing where there is none.

    Raises:
        RetracError: it is damaged.
    """
    path = folder / NUMBERS
    if not path.is_file():
        return []
    try:
        return [Section.from_json(content) for content in read_json(path)["sections"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise RetracError(f"{path} is damaged ({error}): delete it, and evaluate again") from error


def parts(sections: Sequence[Section]) -> list[Part]:
    """What the page shows."""
    return [_part(section) for section in sections]


def oriented(section: Section) -> tuple[list[str], list[tuple[str, list[Interval | None]]]]:
    """A table's heads and named rows: measures by methods, or the other way where they are few."""
    methods, names = list(section.rows), section.measures
    if len(names) <= FEW:
        lines = [(method, [section.rows[method].get(name) for name in names]) for method in methods]
        return list(names), lines
    return methods, [(name, [section.rows[m].get(name) for m in methods]) for name in names]


def cell(interval: Interval | None) -> str:
    """A value, and between what it lies."""
    if interval is None or math.isnan(interval.value):
        return "–"
    value, low, high = (_short(x) for x in (interval.value, interval.low, interval.high))
    return value if math.isnan(interval.low) else f"{value} ({low} to {high})"


def brief(interval: Interval | None) -> str:
    """A value, and half the width of its interval."""
    if interval is None or math.isnan(interval.value):
        return "–"
    value, half = _short(interval.value), (interval.high - interval.low) / 2
    return value if math.isnan(half) else f"{value} ±{_short(half)}"


def _part(section: Section) -> Part:
    heads, lines = oriented(section)
    return Part(
        section,
        [method_name(head) for head in heads],
        [(method_name(name), [cell(value) for value in values]) for name, values in lines],
        svg_uri(measures(section)) if section.rows else "",
    )


def measures(section: Section) -> Figure:
    """A panel for every measure; a row for every method, its value as a dot on its interval."""
    names, methods = section.measures, list(section.rows)
    ours = all_methods()
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(
        figsize=(1.2 + 2.3 * columns, (0.9 + 0.26 * len(methods)) * rows + 0.7),
        layout="constrained",
    )
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for place, name in enumerate(names):
        panel = axes[place]
        for height, method in enumerate(methods):
            interval = section.rows[method].get(name)
            if interval is None or math.isnan(interval.value):
                continue
            colour = METHOD if method in ours else BASELINE
            if not math.isnan(interval.low):
                panel.plot([interval.low, interval.high], [height] * 2, color=colour, linewidth=2)
            panel.plot(interval.value, height, "o", color=colour, markersize=5)
        panel.set_title(name, fontsize=9, color=INK, loc="left")
        panel.set_yticks(range(len(methods)), [method_name(method) for method in methods])
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.margins(x=0.1)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(colors=INK, labelsize=8)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", color="#8a8f96", alpha=0.3, linewidth=0.6)
    for unused in axes[len(names) :]:
        unused.remove()
    head(figure, f"{section.name}. {section.about} Lines are 90 % intervals.")
    return figure


def _short(value: float) -> str:
    if abs(value) >= 10 or value.is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"
