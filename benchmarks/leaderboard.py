"""The leaderboard of docs/leaderboard.md: every method on the benchmark that is shipped.

    python -m benchmarks.leaderboard

writes benchmarks/results/leaderboard.json and leaderboard.png, and prints the table.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from retrac.attribution.attribute import attribution_of
from retrac.attribution.attribution import Attribution
from retrac.attribution.config import AttributeConfig
from retrac.evaluation.baselines import pixel_products
from retrac.evaluation.interval import Interval
from retrac.evaluation.lds import Lds
from retrac.evaluation.shipped import Shipped
from retrac.files import write_json
from retrac.report.canvas import INK, MARK, head, save_png

RESULTS = Path(__file__).parent / "results"
NAMES = {"tracin": "TracIn", "retrac": "ReTrac"}
OURS, BASELINE = "#3f8fa8", "#8a8f96"
DEEPEST = "mid_block|down_blocks.1|up_blocks.0"
WAYS = {
    "1 event a checkpoint": AttributeConfig(),
    "all events": AttributeConfig(replay="all"),
    "deepest level, 1 event a checkpoint": AttributeConfig(parameters=DEEPEST),
    "deepest level, all events": AttributeConfig(replay="all", parameters=DEEPEST),
    "without the last convolution, 1 event a checkpoint": AttributeConfig(
        parameters="^(?!conv_out)"
    ),
}
SINGLE = {"1 event a checkpoint": "1 event", "all events": "all its events"}
"""Ways whose checkpoints are scored one by one, too."""
PAIRS = (
    ("ReTrac, all events", "TracIn, all events"),
    ("ReTrac, 1 event a checkpoint", "TracIn, 1 event a checkpoint"),
    ("ReTrac, all events", "ReTrac, 1 event a checkpoint"),
    ("TracIn, all events", "TracIn, 1 event a checkpoint"),
    ("ReTrac, epoch 300, all its events", "ReTrac, epoch 300, 1 event"),
    ("TracIn, epoch 300, all its events", "TracIn, epoch 300, 1 event"),
    ("ReTrac, epoch 50, all its events", "ReTrac, all events"),
    ("TracIn, epoch 50, all its events", "TracIn, all events"),
    ("ReTrac, deepest level, all events", "TracIn, deepest level, all events"),
    ("ReTrac, deepest level, all events", "ReTrac, all events"),
    ("TracIn, deepest level, all events", "TracIn, all events"),
    ("TracIn, deepest level, all events", "TracIn, deepest level, 1 event a checkpoint"),
    ("ReTrac, deepest level, all events", "ReTrac, deepest level, 1 event a checkpoint"),
    ("pixels", "TracIn, deepest level, all events"),
)


@dataclass(frozen=True)
class Settings:
    run: Path = Path("runs/benchmark")
    """Of the benchmark's model; trained where it is not there."""

    def __call__(self) -> None:
        shipped = Shipped.load()
        run = shipped.trained(self.run)
        metric = shipped.with_baselines(run)
        metric.update(
            "products of pixels", pixel_products(shipped.queries.images, run.dataset.images)
        )
        for told, way in WAYS.items():
            found = attribution_of(run, shipped.queries, way, shipped.place(run, way))
            _take(metric, found, told)
        table = [
            {
                "method": method,
                "all": asdict(interval),
                **{
                    kind: asdict(metric.compute(rows)[method])
                    for kind, rows in shipped.kinds.items()
                },
            }
            for method, interval in sorted(metric.compute().items(), key=lambda i: -i[1].value)
        ]
        ceiling = metric.ceiling()
        assert ceiling is not None
        write_json(
            RESULTS / "leaderboard.json",
            {
                "subsets": len(metric.subsets),
                "seeds": metric.losses.shape[1],
                "table": table,
                "ceiling": asdict(ceiling),
                "differences": {
                    f"{one} - {other}": asdict(metric.difference(one, other))
                    for one, other in PAIRS
                },
            },
        )
        shown = [row for row in table if "epoch" not in row["method"]]
        save_png(_figure(shown, ceiling.of_the_mean), RESULTS / "leaderboard.png")
        print(_markdown(shown, shipped))
        print(_by_epoch(table))


def _take(metric: Lds, found: Attribution, told: str) -> None:
    for method in found.methods:
        name = NAMES[method]
        metric.update(f"{name}, {told}", found.scores_of(method).values)
        if told not in SINGLE:
            continue
        single = found.contributions.sel({"method": method})
        for epoch, values in zip(single["checkpoint"].values, single.values, strict=True):
            metric.update(f"{name}, epoch {epoch}, {SINGLE[told]}", values)


def _by_epoch(table: list[dict[str, Any]]) -> str:
    found = {row["method"]: row["all"] for row in table}
    columns = [f"{name}, {way}" for way in SINGLE.values() for name in NAMES.values()]
    epochs = sorted(
        {int(name.split("epoch ")[1].split(",")[0]) for name in found if "epoch" in name}
    )
    lines = [f"| checkpoint | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for epoch in epochs:
        cells = [
            _told(found[f"{name}, epoch {epoch}, {way}"])
            for way in SINGLE.values()
            for name in NAMES.values()
        ]
        lines.append(f"| {epoch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _markdown(table: list[dict[str, Any]], shipped: Shipped) -> str:
    lines = [f"| | LDS (90 % interval) | {' | '.join(shipped.kinds)} |", "|---|---|---|---|"]
    for row in table:
        kinds = " | ".join(f"{row[kind]['value']:.2f}" for kind in shipped.kinds)
        lines.append(f"| {row['method']} | {_told(row['all'])} | {kinds} |")
    return "\n".join(lines)


def _told(content: dict[str, float]) -> str:
    found = Interval.from_json(content)
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _figure(table: list[dict[str, Any]], perfect: float) -> Figure:
    figure = Figure(figsize=(7.5, 0.34 * len(table) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    for height, row in enumerate(table):
        found = Interval.from_json(row["all"])
        colour = OURS if row["method"].startswith(tuple(NAMES.values())) else BASELINE
        axes.plot([found.low, found.high], [height] * 2, color=colour, linewidth=2.5)
        axes.plot(found.value, height, "o", color=colour)
        axes.annotate(
            f"{found.value:.2f}", (found.high, height), (6, -3), textcoords="offset points",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.axvline(perfect, color=MARK, linewidth=1.5, linestyle="--")
    axes.annotate(
        f"upper bound: {perfect:.2f}", (perfect, -0.45), (-4, 0), textcoords="offset points",
        ha="right", fontsize=8, color=MARK,
    )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(table)), [row["method"] for row in table])
    axes.set_ylim(len(table) - 0.5, -0.8)
    axes.set_xlim(right=np.ceil(10 * perfect) / 10 + 0.02)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=BASELINE, alpha=0.3, linewidth=0.6)
    axes.set_xlabel("linear datamodelling score", color=INK)
    head(
        figure,
        "How well do scores foretell the losses of retrained models? 64 halves of 256 digits, 48 "
        "queries; lines are 90 % intervals over the halves",
    )
    return figure


if __name__ == "__main__":
    tyro.cli(Settings)()
