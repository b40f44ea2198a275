"""Do lists and error bars of kernel ReTrac hold? Compared with repeats of the same work.

    python -m benchmarks.repeats RUN [--other OTHER_RUN]

(a) repeats with disjoint timesteps and other noises on both sides, (b) another checkpoint, (c) the
same training with another seed. For each: the share of a list of ten that a repeat gives again, as
told and as measured; of 90 % intervals the share that holds the mean of the other repeats. Writes
benchmarks/results/repeats.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from retrac.attribution.asked import Queries
from retrac.attribution.attribute import attribution_of
from retrac.attribution.attribution import Attribution
from retrac.attribution.config import AttributeConfig, FeatureConfig, PlanConfig
from retrac.attribution.queries import open_queries
from retrac.attribution.uncertainty import in_first
from retrac.files import write_json
from retrac.training.run import Run

RESULTS = Path(__file__).parent / "results"
METHOD = "kernel-retrac"
FIRST = 10


@dataclass(frozen=True)
class Settings:
    run: tyro.conf.Positional[Path]
    other: Path | None = None
    """The same training with another seed."""
    queries: str = "train:12+generated:12"
    grids: tuple[str, ...] = ("small", "medium", "large")
    repeats: int = 4

    def __call__(self) -> None:
        run = Run.open(self.run)
        queries = open_queries(run, self.queries)
        rows: list[dict[str, Any]] = []
        for draws in (*self.grids, "visits"):
            config = AttributeConfig(
                (METHOD,),
                features=FeatureConfig(draws=draws),  # type: ignore[arg-type]
            )
            again = [_scored(run, queries, config, seed) for seed in range(self.repeats)]
            rows.append(_row(draws, "other draws", again))
            before = run.checkpoints[-2].epoch
            earlier = _scored(run, queries, replace(config, checkpoints=(before,)), 1)
            rows.append(_row(draws, "another checkpoint", [again[0], earlier]))
            if self.other is not None:
                elsewhere = _scored(Run.open(self.other), queries, config, 1)
                rows.append(_row(draws, "another training seed", [again[0], elsewhere]))
            for row in rows[-3:]:
                print(row, flush=True)
        write_json(RESULTS / "repeats.json", {"queries": self.queries, "rows": rows})


def _scored(run: Run, queries: Queries, config: AttributeConfig, seed: int) -> Attribution:
    return attribution_of(run, queries, replace(config, plan=PlanConfig(plan_seed=seed)))


def _row(draws: str, what: str, results: Sequence[Attribution]) -> dict[str, Any]:
    scores = [result.scores_of(METHOD).values for result in results]
    lists = [in_first(values, FIRST) for values in scores]
    pairs = list(permutations(range(len(results)), 2))
    again = [(lists[one] & lists[two]).sum(1).mean() / FIRST for one, two in pairs]
    row: dict[str, Any] = {
        "draws": draws,
        "repeat": what,
        "again": float(np.mean(again)),
    }
    if not results[0].sure:
        return row
    sure = [result.uncertainty(METHOD) for result in results]
    row["told"] = float(np.mean([each.first(FIRST).repeatability.mean() for each in sure]))
    row["halves"] = float(np.mean([each.halves.mean() for each in sure]))
    if len(results) > 2:
        others = (np.sum(scores, 0) - np.array(scores)) / (len(scores) - 1)
        within = [
            ((low <= mean) & (mean <= high)).mean()
            for (low, high), mean in zip([s.intervals() for s in sure], others, strict=True)
        ]
        row["intervals that hold the others' mean"] = float(np.mean(within))
    return row


if __name__ == "__main__":
    tyro.cli(Settings)()
