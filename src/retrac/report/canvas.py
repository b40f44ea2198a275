"""What every figure shares: ink and colours, panels, and the ways out (a PNG file, an SVG URI)."""

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from retrac.files import write_whole

INK = "#26292e"
"""Colour of text and axes; in an SVG, a paler one where the page is dark."""
PALE_INK = "#d6d9dd"
MARK = "#c8553d"
"""Colour of the one thing a figure points at."""

# From the first checkpoint to the last; all of middle lightness, to be seen on white and on black.
_COURSE = LinearSegmentedColormap.from_list("course", ["#3f8fa8", "#8d7cb8", "#d0703f"])

_EDGE: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.12}


def course(count: int) -> list[str]:
    """Return one colour per checkpoint, in the order of training."""
    return [to_hex(_COURSE(position)) for position in np.linspace(0, 1, count)]


def panels(count: int, title: str, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` equal panels with common axes, in reading order."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    width, height = max(2.4 * columns, 5.6), max(2.0 * rows, 3.0) + 0.8
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: list[Axes] = list(
        figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    )
    for unused in axes[count:]:
        unused.remove()
    for lowest in axes[max(0, count - columns) : count]:
        lowest.tick_params(labelbottom=True)
    head(figure, title)
    return figure, axes[:count]


def head(figure: Figure, title: str) -> None:
    """Set the title over the whole figure, at the left, in as many lines as it needs."""
    characters = round(11.5 * figure.get_figwidth())
    text = "\n".join(textwrap.wrap(title, characters)).replace("$", r"\$")
    figure.suptitle(text, x=0.02, ha="left", color=INK, fontsize=11)


def quiet(axes: Axes) -> None:
    """Leave two spines and a faint grid, so that the data stands out."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(which="both", colors=INK, labelsize=9)
    axes.grid(axis="y", color="#8a8f96", alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)


def log_scale(axes: Axes) -> None:
    """Make the vertical axis logarithmic, labelled with plain numbers at 1, 2, 5, 10, …."""
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Explain the marks below the figure."""
    figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=3,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
    )


def spread(count: int, limit: int) -> list[int]:
    """Return at most `limit` of the indices below `count`, evenly spread, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, limit))})


def save_png(figure: Figure, path: Path) -> Path:
    """Write the figure on white, whole or not at all.

    Raises:
        RetracError: no space left, or no permission.
    """
    with write_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor="white", **_EDGE)
    return path


def svg_uri(figure: Figure) -> str:
    """Return the figure as a `data:` URI, transparent, its ink following light and dark.

    The same figure gives the same text: it holds no date and no random names.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "retrac"}):
        figure.savefig(
            buffer, format="svg", transparent=True, dpi=110, metadata={"Date": None}, **_EDGE
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    style = (
        f"<style>svg{{color:{INK}}}"
        f"@media(prefers-color-scheme:dark){{svg{{color:{PALE_INK}}}}}</style>"
    )
    tag, rest = svg.split(">", 1)
    return "data:image/svg+xml;base64," + base64.b64encode(f"{tag}>{style}{rest}".encode()).decode()
