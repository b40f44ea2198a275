"""The samples of largest self-influence, as a picture, and all of them as a table."""

import csv
from pathlib import Path

import numpy as np

from retrac.attribution.self_influence import SelfInfluence
from retrac.files import write_whole
from retrac.report.canvas import save_png
from retrac.report.figures import image_grid

COLUMNS = 8


def write_outliers(
    result: SelfInfluence, method: str, folder: Path, top: int = 32
) -> tuple[Path, Path]:
    """Write `top-METHOD.png` and `ranked-METHOD.csv` into a folder; returns both paths."""
    ranked = result.ranked(method)
    first = ranked[:top]
    captions = [
        f"{entry.rank}. {entry.id}"
        + (f"\n{entry.label}" if entry.label else "")
        + f"\n{entry.score:.3g}"
        for entry in first
    ]
    figure = image_grid(
        np.stack([result.image(entry.sample) for entry in first]),
        captions,
        COLUMNS,
        f"Largest self-influence by {method}, of {len(ranked)} samples: rank, id, label, score",
    )
    picture = folder / f"top-{method}.png"
    save_png(figure, picture)
    table = folder / f"ranked-{method}.csv"
    with (
        write_whole(table) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["rank", "sample", "id", "label", "score"])
        writer.writerows((e.rank, e.sample, e.id, e.label, e.score) for e in ranked)
    return picture, table
