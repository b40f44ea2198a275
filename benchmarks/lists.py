"""What stands at the top of the lists: own label, distinct samples, rank of the query itself.

`python benchmarks/lists.py RUN --queries-per-label 2` attributes some training samples of every
label and prints, for each method, what share of their first k proponents (the query left out) has
their label, how many of those are distinct, and where the query itself ranks.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import retrac
from retrac.files import write_json
from retrac.influence.config import AttributeConfig
from retrac.influence.queries import training_samples


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    run: tyro.conf.Positional[Path]
    queries_per_label: int = 2
    """Queries of each label, chosen at random."""
    k: int = 10
    """Length of the lists."""
    seed: int = 0
    """Chooses the queries."""
    output: Path | None = None
    """JSON file for the numbers."""
    config: tyro.conf.OmitArgPrefixes[AttributeConfig] = field(default_factory=AttributeConfig)


def main(settings: Settings) -> None:
    run = retrac.Run.open(settings.run)
    labels = np.array(run.dataset.labels)
    chosen = np.random.default_rng(settings.seed)
    queries = np.concatenate(
        [
            chosen.choice(np.flatnonzero(labels == label), settings.queries_per_label, False)
            for label in np.unique(labels)
        ]
    )
    config = settings.config
    result = retrac.attribute(
        run,
        training_samples(run, "queries", queries.tolist()),
        config.methods,
        checkpoints=config.checkpoints,
        replay=config.replay,
        parameters=config.parameters,
        plan=config.plan,
        compute=config.compute,
    )
    found = {
        method: _lists(result.scores_of(method).values, queries, labels, settings.k)
        for method in result.methods
    }
    _print(found, settings.k)
    if settings.output is not None:
        told = {
            **asdict(config),
            "plan": config.plan.settings,
            "k": settings.k,
            "queries": queries.tolist(),
            "run": run.facts,
        }
        write_json(settings.output, {"methods": found, "settings": told})


def _lists(scores: np.ndarray, queries: np.ndarray, labels: np.ndarray, k: int) -> dict[str, Any]:
    order = np.argsort(-scores, axis=1, kind="stable")
    tops = np.stack([row[row != query][:k] for row, query in zip(order, queries, strict=True)])
    own = labels[queries]
    return {
        "own label": float((labels[tops] == own[:, None]).mean()),
        "distinct": len(np.unique(tops)) / tops.size,
        "rank of the query": [
            int(np.flatnonzero(row == query)[0]) + 1
            for row, query in zip(order, queries, strict=True)
        ],
        "labels in the lists of": {
            str(label): dict(Counter(labels[tops[own == label]].ravel().tolist()).most_common())
            for label in np.unique(own)
        },
    }


def _print(found: dict[str, dict[str, Any]], k: int) -> None:
    table = Table("method", f"own label in top {k}", "distinct", "query's own rank, median")
    for method, numbers in found.items():
        rank = float(np.median(numbers["rank of the query"]))
        table.add_row(
            method, f"{numbers['own label']:.2f}", f"{numbers['distinct']:.2f}", f"{rank:g}"
        )
    console = Console()
    console.print(table)
    for method, numbers in found.items():
        for label, counts in numbers["labels in the lists of"].items():
            listed = ", ".join(f"{name} ×{count}" for name, count in counts.items())
            console.print(f"{method}, queries labelled {label}: {listed}")


if __name__ == "__main__":
    main(tyro.cli(Settings))
