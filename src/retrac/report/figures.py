"""The figures: gradient norms against timesteps, and grids of images.

Each function returns a `matplotlib.figure.Figure`; `canvas.save_png` and `canvas.svg_uri` take it
from there. Nothing here touches pyplot, so no state leaks from one figure into the next.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from retrac.attribution.attribution import Attribution
from retrac.data.images import Pixels, to_pil
from retrac.report.canvas import INK, MARK, course, head, legend, log_scale, panels, quiet, spread

TIMESTEP = "timestep (higher is noisier)"
NORM = "gradient norm (log scale)"
DOTS = 3000
"""Dots drawn in one panel; more would only darken the cloud."""

Numbers = NDArray[np.float64]


def norms_by_timestep(attribution: Attribution) -> Figure:
    """Show norms against timesteps: a line per checkpoint for the queries, a dot per event."""
    data = attribution.dataset
    colours = course(data.sizes["checkpoint"])
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    timesteps, norms, checkpoint = _events(attribution)
    _dots(axes, timesteps, norms, [colours[index] for index in checkpoint])
    for colour, of_queries in zip(colours, data["query_norm"].values, strict=True):
        axes.plot(data["timestep"].values, np.median(of_queries, axis=0), color=colour, linewidth=2)
    axes.set_xlabel(TIMESTEP, color=INK)
    axes.set_ylabel(NORM, color=INK)
    log_scale(axes)
    quiet(axes)
    head(figure, norm_finding(attribution))
    epochs = data["checkpoint"].values
    legend(
        figure,
        [
            Line2D([], [], color=INK, linewidth=2, label="queries (median)"),
            Line2D([], [], color=INK, linestyle="none", marker=".", label="sample at an event"),
            *(
                Line2D([], [], color=colours[index], linewidth=5, label=f"epoch {epochs[index]}")
                for index in spread(len(epochs), 6)
            ),
        ],
    )
    return figure


def norm_finding(attribution: Attribution) -> str:
    """Say in one sentence how the samples' gradient norms depend on the timesteps of training."""
    timesteps, norms, _ = _events(attribution)
    return _finding(timesteps, norms)


def sample_norms(
    timesteps: ArrayLike,
    norms: ArrayLike,
    checkpoints: Sequence[int],
    trained_at: Sequence[Sequence[int]],
    title: str,
) -> Figure:
    """Show one sample's gradient norm against timesteps, a panel per checkpoint.

    Args:
        timesteps: where the norm was computed, `[T]`.
        norms: `[checkpoint, T]`.
        checkpoints: epoch of each checkpoint.
        trained_at: per checkpoint, the timesteps at which the sample was trained.
        title: what is seen, and of which sample.
    """
    figure, every = panels(len(checkpoints), title)
    parts = zip(every, course(len(every)), checkpoints, np.asarray(norms), trained_at, strict=True)
    for axes, colour, epoch, curve, visits in parts:
        for timestep in visits:
            axes.axvline(timestep, color=MARK, linewidth=1.2, linestyle="--")
        axes.plot(np.asarray(timesteps), curve, color=colour, linewidth=1.8)
        _panel(axes, epoch)
    _axis_names(figure, f"{TIMESTEP}; dashed: trained there")
    return figure


def training_norms(timesteps: ArrayLike, norms: ArrayLike, checkpoints: Sequence[int]) -> Figure:
    """Show many samples' gradient norms, each at its training timestep, a panel per checkpoint.

    Args:
        timesteps: `[checkpoint, N]`.
        norms: `[checkpoint, N]`.
        checkpoints: epoch of each checkpoint.
    """
    timesteps, norms = np.asarray(timesteps, dtype=float), np.asarray(norms, dtype=float)
    figure, every = panels(len(checkpoints), _finding(timesteps.ravel(), norms.ravel()))
    parts = zip(every, course(len(every)), checkpoints, timesteps, norms, strict=True)
    for axes, colour, epoch, where, height in parts:
        _dots(axes, where, height, [colour] * len(where))
        _panel(axes, epoch)
    _axis_names(figure)
    return figure


def image_grid(images: Pixels, captions: Sequence[str], columns: int, title: str) -> Figure:
    """Show uint8 images `[K, C, H, W]`, each above its caption."""
    rows = max(1, math.ceil(len(images) / columns))
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    figure = Figure(
        figsize=(1.3 * columns, (1.3 + 0.16 * lines) * rows + 0.5), layout="constrained"
    )
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell, image, caption in zip(cells, images, captions, strict=False):
        cell.imshow(to_pil(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        cell.set_xlabel(caption.replace("$", r"\$"), fontsize=8, color=INK)
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
    for unused in cells[len(images) :]:
        unused.remove()
    head(figure, title)
    return figure


def _events(attribution: Attribution) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """Return timestep, gradient norm and index of the checkpoint of every replayed event."""
    timesteps = attribution.dataset["train_timestep"].values.astype(float)
    norms = attribution.dataset["train_norm"].values.astype(float)
    there = timesteps >= 0
    return timesteps[there], norms[there], np.nonzero(there)[0]


def _finding(timesteps: Numbers, norms: Numbers) -> str:
    if not len(norms):
        return "No events were replayed, so no sample has a gradient norm"
    low, high = np.quantile(timesteps, [0.1, 0.9])
    at_low, at_high = (np.median(norms[part]) for part in (timesteps <= low, timesteps >= high))
    return (
        f"Median gradient norm of samples trained at timesteps up to {low:.0f}: {at_low:#.3g}; "
        f"from {high:.0f} on: {at_high:#.3g}"
    )


def _dots(axes: Axes, timesteps: Numbers, norms: Numbers, colours: Sequence[str]) -> None:
    # In random order, so that the dots of one checkpoint do not cover those of another.
    few = np.random.default_rng(0).permutation(len(norms))[:DOTS]
    axes.scatter(
        timesteps[few],
        norms[few],
        s=6,
        c=np.asarray(colours)[few],
        alpha=0.45,
        linewidths=0,
        rasterized=True,  # thousands of dots as vectors would outweigh the page
    )


def _panel(axes: Axes, epoch: int) -> None:
    log_scale(axes)
    axes.set_title(f"epoch {epoch}", fontsize=9, color=INK)
    quiet(axes)


def _axis_names(figure: Figure, horizontal: str = TIMESTEP) -> None:
    figure.supxlabel(horizontal, color=INK, fontsize=10)
    figure.supylabel(NORM, color=INK, fontsize=10)
