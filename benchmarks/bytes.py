"""How well do scores foretell retraining, against the bytes of a sample that they take?

    python -m benchmarks.bytes

Kernel ReTrac on the benchmark that is shipped, with more and fewer numbers of each layer. Bytes are
those of an index: two for each number, bin and measurement, without the parts that show errors.
Writes benchmarks/results/bytes.json and bytes.png.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from benchmarks.leaderboard import Entry, kept
from retrac.attribution.attribute import attribution_of
from retrac.attribution.config import AttributeConfig, FeatureConfig
from retrac.attribution.methods import DEFAULT, method_named
from retrac.evaluation.lds import Lds
from retrac.evaluation.shipped import Shipped
from retrac.files import write_json
from retrac.interval import Interval
from retrac.report.canvas import INK, head, legend, save_png

RESULTS = Path(__file__).parent / "results"
NUMBERS = (4, 16, 64, 256)
DRAWS = {"visits": True, "medium": True, "visits, loss alone": False}
"""Draws, and whether outputs are compared, too."""


@dataclass(frozen=True)
class Settings:
    run: Path = Path("runs/benchmark")
    """Of the benchmark's model; trained where it is not there."""

    def __call__(self) -> None:
        shipped = Shipped.load()
        run = shipped.trained(self.run)
        metric = Lds(shipped.subsets, shipped.losses)
        rows: list[dict[str, Any]] = []
        for name, outputs in DRAWS.items():
            draws = name.partition(",")[0]
            for numbers in NUMBERS:
                features = FeatureConfig(draws, outputs, numbers)  # type: ignore[arg-type]
                config = AttributeConfig(DEFAULT[:1], features=features)
                result = attribution_of(run, shipped.queries, config, shipped.place(run, config))
                metric.update("x", result.scores_of(DEFAULT[0]).values)
                (size,) = kept(run, shipped, Entry(DEFAULT[:1], "", config)).values()
                lds = asdict(metric.compute()["x"])
                rows.append({"draws": name, "numbers": numbers, "bytes": size, "lds": lds})
                print(rows[-1], flush=True)
        write_json(RESULTS / "bytes.json", {"rows": rows})
        save_png(_figure(rows), RESULTS / "bytes.png")


def _figure(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in DRAWS:
        some = [row for row in rows if row["draws"] == name]
        values = [Interval.from_json(row["lds"]).value for row in some]
        axes.plot([row["bytes"] / 1000 for row in some], values, marker="o", label=name)
        for row, value in zip(some, values, strict=True):
            axes.annotate(
                str(row["numbers"]), (row["bytes"] / 1000, value), (0, 6),
                textcoords="offset points", ha="center", fontsize=8, color=INK,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("KB of a sample (labels: numbers of each layer)", color=INK)
    axes.set_ylabel("linear datamodelling score", color=INK)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    legend(figure, axes.get_lines())
    head(figure, f"{method_named(DEFAULT[0]).title}: how well it foretells, against what it keeps")
    return figure


if __name__ == "__main__":
    tyro.cli(Settings)()
