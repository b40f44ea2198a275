"""Queries beside what is generated from their noise once samples have been removed."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrac.data.images import Pixels, to_pil
from retrac.evaluation.images import structural_similarity
from retrac.evaluation.removal import RANDOM
from retrac.report.canvas import INK, head
from retrac.report.wording import method_name


def regenerated_images(
    queries: Mapping[str, Pixels], made: Mapping[str, Mapping[str, Pixels]], k: int, size: int
) -> Figure:
    """A row for each query, a column for each way in which k samples were chosen.

    Args:
        queries: id -> uint8 `[C, H, W]`.
        made: id -> way -> the image that a model made without these samples.
        k: samples that were removed.
        size: of the training set.
    """
    ways = list(dict.fromkeys(way for by_way in made.values() for way in by_way))
    columns = 1 + len(ways)
    figure = Figure(figsize=(1.5 * columns + 0.3, 1.75 * len(made) + 1.2), layout="constrained")
    cells = figure.subplots(len(made), columns, squeeze=False)
    for row, (name, by_way) in zip(cells, made.items(), strict=True):
        _show(row[0], queries[name], f"{name}\nas generated")
        for cell, way in zip(row[1:], ways, strict=True):
            similarity = structural_similarity(queries[name], by_way[way])
            _show(cell, by_way[way], f"SSIM {similarity:.2f}\n")
    for cell, title in zip(cells[0], ["query\n", *(_title(way, k) for way in ways)], strict=True):
        cell.set_title(title, fontsize=9, color=INK)
    head(
        figure,
        f"Generated from the same noise, after training again without {k} of {size} samples. "
        "SSIM: similarity with the query, 1 for the same image",
    )
    return figure


def _title(way: str, k: int) -> str:
    own = {RANDOM: f"without {k}\nat random", "pixels": f"without the {k}\nnearest in pixels"}
    return own.get(way, f"without the first {k}\nby {method_name(way)}")


def _show(cell: Axes, image: Pixels, caption: str) -> None:
    cell.imshow(np.asarray(to_pil(image)), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    cell.set_xlabel(caption, fontsize=8, color=INK)
    cell.set(xticks=[], yticks=[])
    cell.spines[:].set_visible(False)
