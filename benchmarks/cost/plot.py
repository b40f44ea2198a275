"""A picture of the table."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.cost.measure import Cost
from benchmarks.cost.report import Measured
from benchmarks.cost.rows import ROWS
from retrac.report.canvas import INK, course, head

HEIGHT = 0.8
"""Of all bars of one row together."""
FAR = 10
"""Between the shortest bar and the longest, from which on the axis is logarithmic."""


def plot(measured: Sequence[Measured], names: Sequence[str], device: str) -> Figure:
    """Cost and memory of every row; a bar for each network."""
    figure = Figure(figsize=(10, 1.2 + 0.5 * len(names)), layout="constrained")
    time, memory = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    head(figure, f"Seconds relative to a plain training step, and peak memory: {device}")
    for index, (each, colour) in enumerate(zip(measured, course(len(measured)), strict=True)):
        thickness = HEIGHT / len(measured)
        offset = (index + 0.5) * thickness - HEIGHT / 2
        found = [
            (place + offset, cost)
            for place, name in enumerate(names)
            if isinstance(cost := each.costs[name], Cost)
        ]
        if not found:
            continue
        places, costs = zip(*found, strict=True)
        low, middle, high = np.transpose([np.quantile(cost.ratios, (0, 0.5, 1)) for cost in costs])
        time.barh(
            places,
            middle,
            thickness,
            xerr=(middle - low, high - middle),
            color=colour,
            ecolor=INK,
            label=f"{each.network.title}, {each.network.parameters / 1e6:.1f} M",
        )
        memory.barh(places, [c.peak_bytes / 2**30 for c in costs], thickness, color=colour)
    for axes, label in ((time, "× plain training step"), (memory, "GB beyond network and batch")):
        lengths = [bar.get_width() for bar in axes.patches]
        if lengths and max(lengths) > FAR * min(lengths):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
    time.axvline(1, color=INK, linewidth=1)
    titles = [f"{ROWS[name].title}, per {ROWS[name].per}" for name in names]
    time.set_yticks(range(len(names)), titles)
    time.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=len(measured))
    return figure
