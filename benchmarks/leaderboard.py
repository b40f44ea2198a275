"""The leaderboard of docs/leaderboard.md: every method on the benchmark that is shipped.

    python -m benchmarks.leaderboard

writes benchmarks/results/leaderboard.json and leaderboard.png, and prints the table.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from benchmarks.damping import SINGLE as ONE_KERNEL
from benchmarks.damping import scored
from retrac.attribution.attribute import attribution_of
from retrac.attribution.config import AttributeConfig, FeatureConfig
from retrac.attribution.engine import Engine
from retrac.attribution.methods import DEFAULT, by_events, method_named, methods
from retrac.attribution.scorer import pattern_of
from retrac.evaluation.baselines import pixel_products
from retrac.evaluation.lds import Lds
from retrac.evaluation.shipped import Shipped
from retrac.files import read_json, write_json
from retrac.interval import Interval
from retrac.report.canvas import INK, MARK, head, save_png
from retrac.training.config import RecordConfig
from retrac.training.loop import train
from retrac.training.trained import TrainedRun

RESULTS = Path(__file__).parent / "results"
OURS, BASELINE = "#3f8fa8", "#8a8f96"
DEEPEST = "mid_block|down_blocks.1|up_blocks.0"


@dataclass(frozen=True)
class Entry:
    """One way of scoring.

    Attributes:
        methods: that share it.
        how: what tells it from the usual one; empty for that.
        config: the way.
    """

    methods: tuple[str, ...]
    how: str
    config: AttributeConfig


def _features(method: str, how: str, **settings: Any) -> Entry:
    return Entry((method,), how, AttributeConfig((method,), features=FeatureConfig(**settings)))


KERNEL = DEFAULT[0]
EVENTS = tuple(method.name for method in by_events())
OTHERS = tuple(name for name in methods() if name not in (KERNEL, *EVENTS))
ENTRIES = (
    _features(KERNEL, ""),
    _features(KERNEL, "16 draws", draws="small"),
    _features(KERNEL, "64 draws", draws="medium"),
    _features(KERNEL, "192 draws", draws="large"),
    _features(KERNEL, "loss alone", outputs=False),
    _features(KERNEL, "64 draws, loss alone", draws="medium", outputs=False),
    _features(KERNEL, "192 draws, loss alone", draws="large", outputs=False),
    _features(KERNEL, "64 draws, 64 numbers a layer", draws="medium", layer_numbers=64),
    _features(KERNEL, "64 draws, whole layers", draws="medium", layer_numbers=0),
    Entry(DEFAULT, "recorded while training", AttributeConfig(DEFAULT, recorded=True)),
    *(Entry((name,), "", AttributeConfig((name,))) for name in OTHERS),
    Entry(EVENTS, "1 event a checkpoint", AttributeConfig(EVENTS)),
    Entry(EVENTS, "all events", AttributeConfig(EVENTS, replay="all")),
    Entry(
        EVENTS,
        "deepest level, all events",
        AttributeConfig(EVENTS, replay="all", parameters=DEEPEST),
    ),
)
SINGLE = {"1 event a checkpoint": "1 event", "all events": "all its events"}
"""Ways whose checkpoints are scored one by one, too."""
BEST = "λ chosen on this bank, an upper bound"
_OURS, _LATER, _EARLIER = (method_named(name).title for name in DEFAULT)
PAIRS = (
    *((_OURS, baseline) for baseline in ("pixels", "patches")),
    *((_OURS, method_named(name).title) for name in OTHERS),
    (_OURS, f"{_OURS}, loss alone"),
    (f"{_OURS}, 192 draws", f"{_OURS}, 64 draws"),
    (f"{_OURS}, 64 draws", f"{_OURS}, 64 draws, whole layers"),
    (f"{_OURS}, recorded while training", f"{_OURS}, loss alone"),
    (f"{_LATER}, all events", f"{_EARLIER}, all events"),
    *((f"{title}, all events", f"{title}, 1 event a checkpoint") for title in (_LATER, _EARLIER)),
    (f"{_LATER}, deepest level, all events", f"{_LATER}, all events"),
)
"""Of rows whose differences are told."""


@dataclass(frozen=True)
class Settings:
    run: Path = Path("runs/benchmark")
    """Of the benchmark's model; trained where it is not there."""
    recorded: Path = Path("runs/benchmark-recorded")
    """The same, recorded while it trained."""

    def __call__(self) -> None:
        shipped = Shipped.load()
        run = shipped.trained(self.run)
        recorded = train(shipped.training, self.recorded, RecordConfig(), dataset=shipped.dataset())
        metric = shipped.with_baselines(run)
        products = pixel_products(shipped.queries.images, run.dataset.images)
        metric.update("products of pixels", products)
        seconds, covered = _seconds(self.run), dict[str, float]()
        bytes_of: dict[str, int] = {}
        ours = []
        for entry in ENTRIES:
            scored_run = recorded if entry.config.recorded else run
            names = _take(metric, scored_run, shipped, entry, seconds)
            bytes_of |= kept(scored_run, shipped, entry)
            covered |= dict.fromkeys(names, _covered(run, entry.config))
            ours += names
            write_json(self.run / "seconds.json", seconds)
        ours += _best(metric, run, shipped)
        kinds = {kind: metric.compute(rows) for kind, rows in shipped.kinds.items()}
        table = [
            {
                "method": name,
                "ours": name in ours,
                "all": asdict(interval),
                **{kind: asdict(found[name]) for kind, found in kinds.items()},
                "seconds": seconds.get(name),
                "parameters": covered.get(name),
                "bytes": bytes_of.get(name),
            }
            for name, interval in sorted(metric.compute().items(), key=lambda i: -i[1].value)
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
        rows = [row for row in table if "epoch" not in str(row["method"])]
        save_png(_figure(rows, ceiling.of_the_mean), RESULTS / "leaderboard.png")
        print(_markdown(rows, shipped))
        print(_by_epoch(table))


def _seconds(run: Path) -> dict[str, float]:
    """Of entries that were scored before, which are not scored again."""
    path = run / "seconds.json"
    return dict(read_json(path)) if path.is_file() else {}


def _take(
    metric: Lds, run: TrainedRun, shipped: Shipped, entry: Entry, seconds: dict[str, float]
) -> list[str]:
    path = shipped.place(run, entry.config)
    fresh, begun = not path.exists(), time.perf_counter()
    result = attribution_of(run, shipped.queries, entry.config, path)
    taken = time.perf_counter() - begun
    names = []
    for method in result.methods:
        title = method_named(method).title
        name = _row(title, entry)
        names.append(name)
        metric.update(name, result.scores_of(method).values)
        if fresh:
            seconds[name] = taken
        if entry.how not in SINGLE or method not in EVENTS:
            continue
        single = result.contributions.sel({"method": method})
        for epoch, values in zip(single["checkpoint"].values, single.values, strict=True):
            label = f"{title}, epoch {epoch}, {SINGLE[entry.how]}"
            names.append(label)
            metric.update(label, values)
    return names


def _covered(run: TrainedRun, config: AttributeConfig) -> float:
    """Share of the network's numbers whose gradients are compared."""
    model = run.checkpoints[-1].load(run.shape)
    pattern = pattern_of(run, config.parameters)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    counted = sum(size for name, size in sizes.items() if re.search(pattern, name))
    return counted / sum(sizes.values())


def kept(run: TrainedRun, shipped: Shipped, entry: Entry) -> dict[str, int]:
    """Bytes of a sample's features by row, two for each number, without the parts that show errors;
    none for methods that compare whole gradients."""
    found: dict[str, int] = {}
    for work in Engine.of(run, entry.config).works(shipped.queries):
        numbers = sum(lot.size for lot in work.lots)
        size = 2 * work.source.bins * len(work.measurements) * numbers
        found |= {_row(method.title, entry): size for method in work.methods}
    return found


def _row(title: str, entry: Entry) -> str:
    return f"{title}, {entry.how}" if entry.how else title


def _best(metric: Lds, run: TrainedRun, shipped: Shipped) -> list[str]:
    """Methods with one kernel under the λ that does best here, as is usual in their papers."""
    names = []
    for method in ONE_KERNEL:
        config = AttributeConfig((method,), features=FeatureConfig(draws="medium"))
        (work,) = Engine.of(run, config).works(shipped.queries)
        best: tuple[float, np.ndarray] = (-1.0, np.empty(0))
        for (rule, _, _), values in scored(work).items():
            trial = Lds(metric.subsets, metric.losses)
            trial.update("x", values)
            reached = trial.compute()["x"].value
            if rule == "share" and reached > best[0]:
                best = (reached, values)
        names.append(f"{method_named(method).title}, {BEST}")
        metric.update(names[-1], best[1])
    return names


def _by_epoch(table: Sequence[Mapping[str, Any]]) -> str:
    values = {row["method"]: row["all"] for row in table}
    titles = [method_named(name).title for name in EVENTS]
    columns = [(title, way) for way in SINGLE.values() for title in titles]
    epochs = sorted(
        {int(name.split("epoch ")[1].split(",")[0]) for name in values if "epoch" in name}
    )
    heads = " | ".join(f"{title}, {way}" for title, way in columns)
    lines = [f"| checkpoint | {heads} |", "|---" * (len(columns) + 1) + "|"]
    for epoch in epochs:
        cells = [_cell(values[f"{title}, epoch {epoch}, {way}"]) for title, way in columns]
        lines.append(f"| {epoch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _markdown(table: Sequence[Mapping[str, Any]], shipped: Shipped) -> str:
    heads = ("", "LDS (90 % interval)", *shipped.kinds, "parameters", "KB", "seconds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in table:
        kinds = " | ".join(f"{row[kind]['value']:.2f}" for kind in shipped.kinds)
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        covered = "" if row["parameters"] is None else f"{row['parameters']:.0%}"
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1000:,.0f}"
        cells = (row["method"], _cell(row["all"]), kinds, covered, size, seconds)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(content: Mapping[str, float]) -> str:
    interval = Interval.from_json(dict(content))
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _figure(table: Sequence[Mapping[str, Any]], perfect: float) -> Figure:
    figure = Figure(figsize=(7.5, 0.34 * len(table) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    for height, row in enumerate(table):
        interval = Interval.from_json(row["all"])
        colour = OURS if row["ours"] else BASELINE
        axes.plot([interval.low, interval.high], [height] * 2, color=colour, linewidth=2.5)
        axes.plot(interval.value, height, "o", color=colour)
        beyond = interval.high > perfect - 0.1  # where the line of the upper bound would cross it
        axes.annotate(
            f"{interval.value:.2f}", (interval.low if beyond else interval.high, height),
            (-6 if beyond else 6, -3), textcoords="offset points", fontsize=8, color=INK,
            ha="right" if beyond else "left",
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
