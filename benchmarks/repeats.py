"""Do lists and error bars of methods by features hold? Compared with repeats of the same work.

    python -m benchmarks.repeats RUN --other OTHER_RUN
    python -m benchmarks.repeats RUN --methods trak d-trak cosine --draws medium \
        --output benchmarks/results/repeats-others.json

(a) repeats with disjoint timesteps or visits, and other noises on both sides; (b) another
checkpoint, too; (c) the same training with another seed. For each: the share of a list of ten that
a repeat gives again, as told and as measured, and of 90 % intervals the share that holds the mean
of the others (`benchmarks.coverage`). Writes a JSON file, row by row.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from benchmarks.coverage import compared
from retrac.attribution.asked import Queries
from retrac.attribution.attribute import attribution_of
from retrac.attribution.attribution import Attribution
from retrac.attribution.config import AttributeConfig, FeatureConfig, PlanConfig
from retrac.attribution.methods import DEFAULT
from retrac.attribution.queries import open_queries
from retrac.files import write_json
from retrac.training.run import Run

RESULTS = Path(__file__).parent / "results"
FIRST = 10


@dataclass(frozen=True)
class Settings:
    run: tyro.conf.Positional[Path]
    other: Path | None = None
    """The same training with another seed."""
    methods: tuple[str, ...] = DEFAULT[:1]
    queries: str = "train:12+generated:12"
    draws: tuple[str, ...] = ("visits", "medium", "small", "large")
    repeats: int = 4
    output: Path = RESULTS / "repeats.json"

    def __call__(self) -> None:
        run = Run.open(self.run)
        queries = open_queries(run, self.queries)
        rows: list[dict[str, Any]] = []
        for draws in self.draws:
            features = FeatureConfig(draws=draws)  # type: ignore[arg-type]
            config = AttributeConfig(self.methods, features=features)
            again = [_scored(run, queries, config, seed) for seed in range(self.repeats)]
            before = run.checkpoints[-2].epoch
            earlier = _scored(run, queries, replace(config, checkpoints=(before,)), 1)
            kinds = {"other draws": again, "another checkpoint": [again[0], earlier]}
            if self.other is not None:
                elsewhere = _scored(Run.open(self.other), queries, config, 1)
                kinds["another training seed"] = [again[0], elsewhere]
            for kind, found in kinds.items():
                for method in self.methods:
                    told = compared([each.uncertainty(method) for each in found], (FIRST,))
                    lists, count = told.pop("lists")[str(FIRST)], told.pop("repeats")
                    about = {"method": method, "draws": draws, "repeat": kind, "of": count}
                    rows.append({**about, **told, **lists})
                    print(rows[-1], flush=True)
            write_json(self.output, {"queries": self.queries, "rows": rows})


def _scored(run: Run, queries: Queries, config: AttributeConfig, seed: int) -> Attribution:
    """Scores with draws that no other seed has."""
    config = replace(config, plan=PlanConfig(plan_seed=seed), replay_back=seed)
    return attribution_of(run, queries, config)


if __name__ == "__main__":
    tyro.cli(Settings)()
