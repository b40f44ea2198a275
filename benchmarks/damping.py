"""How strongly kernels are damped: LDS against λ on the development bank, never on the benchmark.

    python -m benchmarks.damping
    python -m benchmarks.damping --banks runs/bank-128 development runs/bank-512 runs/bank-1024 \
        --numbers 64 512 --output benchmarks/results/damping-sizes.json

The second command asks whether a rule holds for other numbers of samples; docs/leaderboard.md says
how its banks are made. Features of a bank's model are made once; then kernels are fitted with λ as
a share of the mean squared norm, over four decades, and with λ by the effective degrees of freedom
(`tr K (K + λI)⁻¹`, as a share of K's rank or as a number). Writes a JSON file, and a PNG file
beside it.
"""

import math
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
from retrac.attribution.methods import method_named, methods
from retrac.attribution.metrics import NOTHING, DampedKernel, damping_of
from retrac.evaluation.lds import Lds
from retrac.evaluation.retraining import Retraining
from retrac.evaluation.shipped import DEVELOPMENT, Shipped
from retrac.files import write_json
from retrac.interval import Interval
from retrac.report.canvas import INK, head, legend, save_png
from retrac.training.trained import TrainedRun

RESULTS = Path(__file__).parent / "results"
SHARES = tuple(sorted({*(float(f"{share:.3g}") for share in np.logspace(-3, 1, 25)), 0.02, 0.5}))
"""27 of them, as TRAK's authors try; those that were taken are among them."""
FREEDOMS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
NUMBERS = (10, 25, 50, 100)
"""Of degrees of freedom."""
DAMPED = {name: each for name, each in methods().items() if isinstance(each.metric, DampedKernel)}
BY_LAYER = tuple(name for name, method in DAMPED.items() if method.separable)
SINGLE = tuple(name for name in DAMPED if name not in BY_LAYER)
"""Methods with a kernel for each layer, and with a single one."""

Damping = Callable[[Tensor], float]
"""Eigenvalues of K, `[N]` -> λ."""


@dataclass(frozen=True)
class Settings:
    banks: tuple[str, ...] = (DEVELOPMENT,)
    """The development bank, or folders of runs with an `lds` folder of their own."""
    runs: Path = Path("runs")
    """Where the development bank's model is; trained where it is not there."""
    draws: tuple[str, ...] = ("visits", "medium")
    """Draws of methods with a kernel for each layer."""
    numbers: tuple[int, ...] = (256,)
    """Of each layer, for the same."""
    output: Path = RESULTS / "damping.json"

    def __call__(self) -> None:
        rows: list[dict[str, Any]] = []
        for name in self.banks:
            bank, run = _opened(name, self.runs)
            metric = Lds(bank.subsets, bank.losses)
            for method, draws, numbers in self._ways():
                features = FeatureConfig(draws=draws, layer_numbers=numbers)  # type: ignore[arg-type]
                config = AttributeConfig((method,), features=features)
                (work,) = Engine.of(run, config).works(bank.queries)
                about = {"samples": run.size, "method": method, "draws": draws, "numbers": numbers}
                for (rule, value, measured), values in scored(work).items():
                    metric.update("x", values)
                    interval = metric.compute()["x"]
                    row = {"rule": rule, "value": value, "measurements": measured}
                    rows.append({**about, **row, "lds": asdict(interval)})
                    print(*about.values(), *row.values(), f"{interval.value:.3f}", flush=True)
            write_json(self.output, {"banks": self.banks, "rows": rows})
        save_png(_figure(rows), self.output.with_suffix(".png"))

    def _ways(self) -> Iterator[tuple[str, str, int]]:
        """Methods, their draws and numbers."""
        for draws in self.draws:
            for numbers in self.numbers:
                for method in BY_LAYER:
                    yield method, draws, numbers
        for method in SINGLE:
            yield method, "medium", 256


def _opened(name: str, runs: Path) -> tuple[Shipped, TrainedRun]:
    """A bank and its model."""
    if name == DEVELOPMENT:
        bank = Shipped.load(name)
        return bank, bank.trained(runs / name)
    run = TrainedRun.open(Path(name))
    return Shipped.of(Retraining.open(run, run.path / "lds")), run


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
        *(
            ("number", number, lambda values, number=number: by_freedom(values, number=number))
            for number in NUMBERS
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
    """`K_q (K + λI)⁻¹` under each rule, by one eigendecomposition of K or of `GᵀG`."""
    few = samples.shape[1] < len(samples)
    gram = (samples.T @ samples if few else samples @ samples.T).double()
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0)
    if float(values.sum()) == 0:
        return
    every = torch.zeros(len(samples), dtype=torch.float64)
    every[: min(len(samples), len(values))] = values[-len(samples) :]
    turned = (queries if few else queries @ samples.T).double() @ vectors
    back = vectors.T @ samples.double().T if few else vectors.T
    for rule, value, damping in rules:
        yield rule, value, (turned / (values + damping(every))) @ back


def by_freedom(values: Tensor, part: float = 0.5, number: float = math.inf) -> float:
    """The λ with which `Σ v / (v + λ)` is this part of the number of eigenvalues above zero, or
    this number, if it is less."""
    positive = values[values > values.max() * NOTHING]
    return damping_of(positive, min(number, part * len(positive)))


def _figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A line of panels for each number of samples: one of λ as a share, one by freedom."""
    sizes = sorted({row["samples"] for row in rows})
    figure = Figure(figsize=(9, 1.2 + 2.8 * len(sizes)), layout="constrained")
    panels = figure.subplots(len(sizes), 2, sharey="row", sharex="col", squeeze=False)
    names = sorted({_named(row, rows) for row in rows})
    colours = {name: f"C{number}" for number, name in enumerate(names)}
    for size, line in zip(sizes, panels, strict=True):
        for axes, rule in zip(line, ("share", "freedom"), strict=True):
            lines: dict[str, list[tuple[float, float]]] = {}
            for row in rows:
                whole = "+" in row["measurements"] or row["method"] in SINGLE
                if (row["rule"], row["samples"]) == (rule, size) and whole:
                    value = Interval.from_json(row["lds"]).value
                    lines.setdefault(_named(row, rows), []).append((row["value"], value))
            for name, points in sorted(lines.items()):
                axes.plot(
                    *zip(*sorted(points), strict=True),
                    marker="o",
                    markersize=3,
                    color=colours[name],
                    label=name,
                )
            axes.set_xscale("log")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("LDS" if len(sizes) == 1 else f"LDS, {size:,} samples", color=INK)
    for axes, label in zip(
        panels[-1], ("λ / mean squared norm", "degrees of freedom / rank"), strict=True
    ):
        axes.set_xlabel(label, color=INK)
    legend(figure, panels[0, 0].get_lines())
    head(figure, "How strongly should kernels be damped?")
    return figure


def _named(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells a line from the others."""
    about = {"draws": "{}", "numbers": "{} numbers"}
    differ = [
        text.format(row[key]) for key, text in about.items() if len({r[key] for r in rows}) > 1
    ]
    return ", ".join((row["method"], *differ))


if __name__ == "__main__":
    tyro.cli(Settings)()
