"""The curve: agreement with the published plan against draws."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.plans.candidates import METHODS, Candidate
from retrac.attribution.config import PlanConfig
from retrac.report.canvas import INK, MARK, head, legend, quiet
from retrac.report.wording import method_name

KINDS = {
    ("middles", "pairs", 2): (MARK, "pairs of opposite noise, 2 a timestep"),
    ("middles", "pairs", 8): ("#8d7cb8", "pairs of opposite noise, 8 a timestep"),
    ("ends", "independent", 4): ("#3f8fa8", "independent noise, 4 a timestep"),
    ("ends", "independent", 16): (INK, "independent noise, 16 a timestep (as published)"),
    ("middles", "shared", 4): ("#9a9fa6", "the same 4 noises at all timesteps"),
}
"""Spacing, noise and noises per timestep -> the line they make."""
TICKS = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def plot(found: Mapping[Candidate, np.ndarray], tables: int) -> Figure:
    """Draw a panel for each method.

    Args:
        found: for each candidate `[2, M, tables]`, the first of which is Spearman's correlation.
        tables: how many pairs of query and checkpoint the lines are means of.
    """
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    panels = figure.subplots(1, len(METHODS), sharey=True)
    head(
        figure,
        "How well a query plan ranks training samples, against what it costs: Spearman correlation "
        f"with the published plan (1,600 draws, other noises), mean of {tables} queries and "
        "checkpoints",
    )
    for at, (axes, method) in enumerate(zip(panels, METHODS, strict=True)):
        _panel(axes, {each: float(numbers[0, at].mean()) for each, numbers in found.items()})
        if at == 0:  # both share it
            axes.invert_yaxis()
        axes.set_title(method_name(method), loc="left", color=INK, fontsize=10)
    panels[0].set_ylabel("agreement with the published plan (1 is perfect)", color=INK)
    lines = [Line2D([], [], color=colour, label=label) for colour, label in KINDS.values()]
    ceiling = Line2D([], [], color=INK, linestyle=":", label="the published plan against itself")
    legend(figure, [*lines, ceiling])
    return figure


def _panel(axes: Axes, spearman: dict[Candidate, float]) -> None:
    for kind, (colour, _) in KINDS.items():
        line = {e.draws: rho for e, rho in spearman.items() if _kind(e) == kind}
        axes.plot(list(line), [1 - rho for rho in line.values()], color=colour, marker=".")
    published = Candidate(100, 16, "ends", "independent")
    axes.axhline(1 - spearman[published], color=INK, linestyle=":", linewidth=1)
    _mark(axes, "published", published, spearman)
    for config in (PlanConfig(plan="fast"), PlanConfig(plan="default")):
        chosen = Candidate(config.timesteps, config.noises, "middles", "pairs")
        _mark(axes, config.plan, chosen, spearman)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([5, 10, 20, 50, 100, 200, 500, 1000]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(FixedLocator([1 - tick for tick in TICKS]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{1 - value:.4g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("draws: gradients per query and checkpoint (log scale)", color=INK)
    quiet(axes)


def _mark(axes: Axes, name: str, candidate: Candidate, spearman: dict[Candidate, float]) -> None:
    point = (candidate.draws, 1 - spearman[candidate])
    axes.plot(*point, marker="o", markersize=10, fillstyle="none", color=INK)
    axes.annotate(
        name, point, xytext=(0, 11), textcoords="offset points", ha="center", color=INK, fontsize=9
    )


def _kind(candidate: Candidate) -> tuple[str, str, int]:
    return candidate.spacing, candidate.noise, candidate.noises
