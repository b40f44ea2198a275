"""How strongly kernels are damped: LDS against λ on the development bank, never on the benchmark.

    python -m benchmarks.damping

Features of the bank's model are made once; then kernels are fitted with λ as a share of the mean
squared norm, over four decades, and with λ by the effective degrees of freedom (the share of the
samples' number that `tr K (K + λI)⁻¹` is). Writes benchmarks/results/damping.json and damping.png.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from retrac.attribution.config import AttributeConfig, FeatureConfig
from retrac.attribution.engine import Engine
from retrac.attribution.feature_work import FeatureWork
from retrac.attribution.methods import method_named
from retrac.evaluation.interval import Interval
from retrac.evaluation.lds import Lds
from retrac.evaluation.shipped import DEVELOPMENT, Shipped
from retrac.files import write_json
from retrac.report.canvas import INK, head, legend, save_png

RESULTS = Path(__file__).parent / "results"
SHARES = tuple(float(f"{share:.3g}") for share in np.logspace(-3, 1, 13))
FREEDOMS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
METHODS = ("kernel-retrac", "trak", "d-trak")
STEPS = 60
"""Halvings in the search for a λ with some degrees of freedom."""

Damping = Callable[[Tensor], float]
"""Eigenvalues of K, `[N]` -> λ."""


@dataclass(frozen=True)
class Settings:
    run: Path = Path("runs/development")
    """Of the bank's model; trained where it is not there."""
    draws: tuple[str, ...] = ("visits", "medium")
    """Draws of kernel-retrac."""

    def __call__(self) -> None:
        bank = Shipped.load(DEVELOPMENT)
        run = bank.trained(self.run)
        metric = Lds(bank.subsets, bank.losses)
        rows: list[dict[str, Any]] = []
        for name in METHODS:
            for draws in self.draws if name == "kernel-retrac" else ("medium",):
                features = FeatureConfig(draws=draws, layer_numbers=256)  # type: ignore[arg-type]
                config = AttributeConfig((name,), features=features)
                (work,) = Engine.of(run, config).works(bank.queries)
                scores = scored(work)
                for (rule, value, measured), values in scores.items():
                    metric.update("x", values)
                    interval = metric.compute()["x"]
                    rows.append(
                        {
                            "method": name,
                            "draws": draws,
                            "rule": rule,
                            "value": value,
                            "measurements": measured,
                            "lds": asdict(interval),
                        }
                    )
                    print(name, draws, rule, value, measured, f"{interval.value:.3f}", flush=True)
        write_json(RESULTS / "damping.json", {"bank": "development", "rows": rows})
        save_png(_figure(rows), RESULTS / "damping.png")


def scored(work: FeatureWork) -> dict[tuple[str, float, str], np.ndarray]:
    """Scores `[Q, N]` by rule, its value and the measurements."""
    rules: list[tuple[str, float, Damping]] = [
        *(
            ("share", share, lambda values, share=share: share * float(values.mean()))
            for share in SHARES
        ),
        *(
            ("freedom", part, lambda values, part=part: by_freedom(values, part))
            for part in FREEDOMS
        ),
    ]
    by_layer = method_named(work.methods[0].name).separable
    total: dict[tuple[str, float, str], Any] = {}
    names = [measurement.__name__ for measurement in work.measurements]
    for queries, samples, layers in work.features():
        blocks = layers if by_layer else [slice(0, samples.shape[2])]
        for measured, asked, held in zip(names, queries, samples, strict=True):
            for block in blocks:
                for rule, value, scores in kernels(asked[:, block], held[:, block], rules):
                    each = scores / (len(blocks) * work.source.bins)
                    for label in {measured, "+".join(names)}:
                        key = (rule, value, label)
                        total[key] = total.get(key, 0) + each
    return {key: values.numpy() for key, values in total.items()}


def kernels(
    queries: Tensor, samples: Tensor, rules: Sequence[tuple[str, float, Damping]]
) -> Iterator[tuple[str, float, Tensor]]:
    """`K_q (K + λI)⁻¹` under each rule, by one eigendecomposition."""
    gram = (samples @ samples.T).double()
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0)
    if float(values.sum()) == 0:
        return
    turned = (queries @ samples.T).double() @ vectors
    for rule, value, damping in rules:
        yield rule, value, (turned / (values + damping(values))) @ vectors.T


def by_freedom(values: Tensor, part: float) -> float:
    """The λ with which `Σ v / (v + λ)` is this part of the number of eigenvalues above zero."""
    positive = values[values > values.max() * 1e-9]
    low, high = 1e-12 * float(values.max()), 1e6 * float(values.max())
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        if float((positive / (positive + middle)).sum()) > part * len(positive):
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, rule in zip(panels, ("share", "freedom"), strict=True):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["rule"] == rule and (
                "+" in row["measurements"] or row["method"] != "kernel-retrac"
            ):
                name = f"{row['method']}, {row['draws']}"
                lines.setdefault(name, []).append(
                    (row["value"], Interval.from_json(row["lds"]).value)
                )
        for name, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=name)
        axes.set_xscale("log")
        axes.set_xlabel(
            "λ / mean squared norm" if rule == "share" else "degrees of freedom / samples",
            color=INK,
        )
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("LDS on the development bank", color=INK)
    legend(figure, panels[0].get_lines())
    head(figure, "How strongly should kernels be damped?")
    return figure


if __name__ == "__main__":
    tyro.cli(Settings)()
