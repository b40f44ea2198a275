"""Plans as they are used: other queries, all training samples, and the time they take."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table as Rows
from torch import Tensor

import retrac
from benchmarks.plans.candidates import METHODS
from benchmarks.plans.compare import TOP, agree, summaries
from retrac.attribution.asked import Asked, pixels
from retrac.attribution.config import AttributeConfig, PlanConfig
from retrac.attribution.queries import open_queries
from retrac.attribution.ranking import evenly_spread
from retrac.attribution.scorer import Scorer
from retrac.diffusion.shown import Seen
from retrac.files import write_json
from retrac.gradients import Directions
from retrac.report.wording import method_name

PLANS = (
    PlanConfig(10, 2),
    PlanConfig(20, 2),
    PlanConfig(20, 4),
    PlanConfig(20, 8),
    PlanConfig(50, 4),
    PlanConfig(20, 16),
    PlanConfig(20, 4, plan="published"),
    PlanConfig(plan="published"),
)
REFERENCE = PlanConfig(plan="published", plan_seed=1)


@dataclass(frozen=True)
class Check:
    """Compare plans with the published one under other noises."""

    run: tyro.conf.Positional[Path]
    queries: int = 4
    """Half of them training samples, half generated; others than those of the tables."""
    output: Path | None = None
    """JSON file for the numbers."""

    def __call__(self) -> None:
        run = retrac.Run.open(self.run)
        images = _queries(run, self.queries)
        scores, seconds = _scores(run, images, (REFERENCE, *PLANS))
        heads = (f"{method_name(method)}: mean, least, top {TOP}" for method in METHODS)
        rows = Rows("plan", "draws", "s per query", *heads)
        found = {}
        for at, plan in enumerate(PLANS, start=1):
            each = [agree(*pair) for pair in zip(scores[at], scores[0], strict=True)]
            agreement = np.stack(each, -1)
            spacing, noise = plan.settings["plan_spacing"], plan.settings["plan_noise"]
            name = f"{plan.timesteps} x {plan.noises} {spacing}, {noise}"
            draws = plan.timesteps * plan.noises
            found[name] = {"draws": draws, "s per query": seconds[at], **summaries(agreement)}
            numbers = (
                f"{spearman.mean():.4f}  {spearman.min():.3f}  {top.mean():.2f}"
                for spearman, top in agreement.swapaxes(0, 1)
            )
            rows.add_row(name, str(draws), f"{seconds[at]:.2f}", *numbers)
        Console(width=110).print(rows)
        if self.output is not None:
            settings = {"run": run.path.name, "samples": len(run.dataset), "queries": len(images)}
            write_json(self.output, {**settings, "plans": found})


def _queries(run: retrac.Run, count: int) -> Tensor:
    half = count // 2
    chosen = evenly_spread(len(run.dataset), 2 * half)[1::2]
    made = pixels(open_queries(run, f"generated:{count - half}", 1).images)
    return torch.cat((run.dataset.tensors(np.array(chosen)), made))


def _scores(
    run: retrac.Run, images: Tensor, plans: tuple[PlanConfig, ...]
) -> tuple[np.ndarray, list[float]]:
    """Scores `[P, Q, M, N]` at the last checkpoint, and seconds per query of each query side."""
    rows: dict[str, list[Tensor]] = {}
    seconds = []
    for plan in plans:
        last = (run.checkpoints[-1].epoch,)
        scorer = Scorer.of(run, AttributeConfig(METHODS, checkpoints=last, plan=plan))
        (replay,) = scorer.replays
        model = scorer.model(replay)
        split = scorer.split(model, len(images))
        names = [str(query) for query in range(len(images))]
        start = time.perf_counter()
        asked = Asked(Seen(images), images)
        found = scorer.directions(model, replay, asked, names, split, lambda timesteps: None)
        seconds.append((time.perf_counter() - start) / len(images))
        for name, directions in found.directions.parameters().items():
            rows.setdefault(name, []).append(directions.unflatten(0, (len(METHODS), len(images))))
    every = Directions({name: torch.cat(parts, 1).flatten(0, 1) for name, parts in rows.items()})
    samples = np.arange(len(run.dataset))
    visits = scorer.visits(replay, samples)
    scores = scorer.scores(model, replay, samples, visits, every, split).scores
    by_plan = scores.reshape(len(METHODS), len(plans), len(images), -1)
    return by_plan.transpose(1, 2, 0, 3), seconds
