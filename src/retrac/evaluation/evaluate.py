"""All metrics on one attribution, with baselines beside the methods."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from retrac.attribution.asked import Queries
from retrac.attribution.attribution import Attribution
from retrac.attribution.config import AttributeConfig, PlanConfig
from retrac.attribution.engine import Engine
from retrac.attribution.estimate import (
    estimate_attribution,
    estimate_samples,
    estimate_self_influence,
    together,
)
from retrac.attribution.methods import by_events
from retrac.attribution.ranking import evenly_spread
from retrac.attribution.scorer import Scorer
from retrac.attribution.self_influence import self_influence, settings_of
from retrac.data.planting import planted
from retrac.errors import RetracError
from retrac.estimate import Estimate
from retrac.evaluation.answers import answers
from retrac.evaluation.baselines import (
    LOSS,
    NORM,
    PIXELS,
    RANDOM,
    baselines,
    pixel_oddness,
    random_scores,
)
from retrac.evaluation.bias import Bias, usual_norms
from retrac.evaluation.config import EvaluationConfig
from retrac.evaluation.moving import Moving, loudest_moments, moved_scores
from retrac.evaluation.outliers import Outliers
from retrac.evaluation.retraining import Retraining, lds_of
from retrac.evaluation.section import Rows, Section
from retrac.evaluation.targeting import Targeting
from retrac.evaluation.tracing import Tracing
from retrac.fingerprints import digest
from retrac.interval import Interval
from retrac.training.run import Run
from retrac.training.trained import TrainedRun

LENGTHS = (10, 50, 100)
OUTLIERS = "self-influence"
UNLABELLED = (
    "Not all queries have a label, so it is not known whether lists hold their like: read little "
    "into distinct samples alone, of which random scores have the most"
)
FAST = PlanConfig(plan="fast")
"""Draws of self-influence, where every sample is a query."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One attribution under all metrics.

    Args:
        run: the training run.
        queries: that were put to it.
        way: how they were scored.
        result: the scores.
        config: what is asked of them.
        losses: folder that `retrac lds prepare` wrote, if there is one.

    Raises:
        RetracError: lists would hold all samples.
    """

    run: Run
    queries: Queries
    way: AttributeConfig
    result: Attribution
    config: EvaluationConfig
    losses: Path

    def __post_init__(self) -> None:
        refuse_long_lists(self.run, self.config)

    def sections(self) -> list[Section]:
        """What each metric found, or why it makes no sense here."""
        run, asked, k = self.run, self.queries, self.config.k
        beside = baselines(run, asked, self.way.compute)
        contenders = {
            **{name: self.result.scores_of(name).values for name in self.result.methods},
            **beside,
        }
        tracing = cache(partial(self._tracing, contenders, k))
        return [
            Section.of(
                "Tracing",
                "Does a query find its own group, the samples with its label? Ranked are all "
                "samples but the query itself; by chance, ROC AUC is 0.5.",
                lambda: {name: each.compute() for name, each in tracing().items()},
            ),
            Section.of(
                "Tracing by group",
                f"Which groups are found? The share of the first {k} that is of the query's group.",
                lambda: {name: each.by_group() for name, each in tracing().items()},
            ),
            Section.of(
                "Targeting",
                "Are answers about the query, or the same whatever is asked? Specific lists are "
                "unique, overlap little, and have few generally influential samples. So do random "
                "ones: read it beside the share that has the query's label.",
                lambda: self._targeting(contenders),
                "" if run.dataset.labels and all(asked.labels) else UNLABELLED,
            ),
            Section.of(
                "Bias of norms",
                "Do scores follow the size of gradients instead of content? By chance a tenth of "
                "a list was trained at the tenth of timesteps with the largest norms.",
                lambda: self._bias(contenders, k),
            ),
            Section.of(
                "Intervention",
                "Samples are scored again as if they had been trained at the timestep with the "
                "largest gradients. Their content is the same (and so is any baseline's score): do "
                "they become influential?",
                lambda: self._intervention(k),
            ),
            Section.of(
                "Outliers",
                "Are planted outliers among the samples with the largest self-influence?",
                lambda: self._outliers(beside),
            ),
            Section.of(
                "Linear datamodelling score",
                "Do sums of scores over random parts of the training set foretell what models lose "
                "that were trained on them?",
                lambda: self._lds(contenders),
            ),
        ]

    def _tracing(self, contenders: Mapping[str, np.ndarray], k: int) -> dict[str, Tracing]:
        found = {}
        for name, scores in contenders.items():
            metric = Tracing(self.run.labels, k)
            for answer in answers(scores, self.queries, self.run.dataset.ids):
                metric.update(answer)
            found[name] = metric
        return found

    def _targeting(self, contenders: Mapping[str, np.ndarray]) -> Rows:
        found, size = {}, len(self.run.dataset)
        lengths = [length for length in LENGTHS if 2 * length <= size] or [max(1, size // 2)]
        for name, scores in contenders.items():
            metric = Targeting(self.run.dataset.labels, lengths)
            for answer in answers(scores, self.queries, self.run.dataset.ids):
                metric.update(answer)
            found[name] = metric.compute()
        return found

    def _bias(self, contenders: Mapping[str, np.ndarray], k: int) -> Rows:
        timesteps, norms = self._visits()
        there = timesteps >= 0
        usual = np.zeros(norms.shape)
        for epoch, (t, norm) in enumerate(zip(timesteps, norms, strict=True)):
            usual[epoch][t >= 0] = usual_norms(t[t >= 0], norm[t >= 0])
        visits = there.sum((0, 2))
        norm, expected = (
            np.where(visits, each.sum((0, 2), where=there) / np.maximum(visits, 1), np.nan)
            for each in (norms, usual)
        )
        found = {}
        for name, scores in contenders.items():
            metric = Bias(norm, expected, k)
            for answer in answers(scores, self.queries, self.run.dataset.ids):
                metric.update(answer)
            found[name] = metric.compute()
        return found

    def _intervention(self, k: int) -> Rows:
        if not self.config.moved:
            raise RetracError("not asked for: --moved is 0")
        if self.result.config.get("index"):
            raise RetracError(
                "an index has no samples to be moved: evaluate exact scores, without --index and "
                "--recorded"
            )
        if self.result.config.get("until"):
            raise RetracError(
                "scores of --until are means over rounds with other events: evaluate those of one"
            )
        timesteps, norms = self._visits()
        epochs = self.result.dataset["checkpoint"].values
        some, samples = chosen_to_move(self.run, self.queries, self.config)
        asked = self.queries.take(some)
        moments = loudest_moments(timesteps, norms, epochs)
        moved = moved_scores(self.run, self.way, asked, samples, moments)
        found = {}
        for name, values in moved.items():
            metric = Moving(samples, k)
            for before, after in zip(self.result.scores_of(name).values[some], values, strict=True):
                metric.update(before, after)
            found[name] = metric.compute()
        return found

    def _outliers(self, beside: Mapping[str, np.ndarray]) -> Rows:
        metric = Outliers(planted(self.run.dataset.ids))
        own = own_influence(self.run, self.way)
        found = self_influence(
            self.run,
            checkpoints=own.checkpoints,
            replay=own.replay,
            parameters=own.parameters,
            plan=own.plan,
            compute=own.compute,
            output=own_place(self.run, own),
        )
        total = found.dataset["score"].sum("checkpoint", skipna=False)
        for method in total["method"].values:
            metric.update(str(method), total.sel({"method": method}).values)
        metric.update(RANDOM, random_scores(1, len(self.run.dataset))[0])
        metric.update(PIXELS, pixel_oddness(self.run.dataset.images))
        for name in (LOSS, NORM):  # the same for every query
            metric.update(name, beside[name][0])
        return metric.compute()

    def _lds(self, contenders: Mapping[str, np.ndarray]) -> Rows:
        if not isinstance(self.run, TrainedRun):
            raise RetracError(
                "not for an adopted model or an imported one: only runs of `retrac train` are "
                "retrained"
            )
        retraining = Retraining.open(self.run, self.losses)
        retraining.refuse_other_queries(
            Path("this attribution"), {"queries": self.result.config["queries"]}
        )
        metric = lds_of(retraining)
        for name, scores in contenders.items():
            metric.update(name, scores)
        found = {name: {"LDS": interval} for name, interval in metric.compute().items()}
        ceiling = metric.ceiling()
        if ceiling is not None:
            found["models of another seed"] = {"LDS": ceiling.between_seeds}
            found["upper bound"] = {"LDS": Interval(ceiling.of_the_mean)}
        return found

    def _visits(self) -> tuple[np.ndarray, np.ndarray]:
        """Timesteps and gradient norms of the replayed visits, `[K, N, V]` each."""
        data = self.result.dataset
        timesteps, norms = data["train_timestep"].values, data["train_norm"].values.astype(float)
        if norms.size == 0:
            raise RetracError("no method here adds up events, whose norms could be looked at")
        if not np.isfinite(norms[timesteps >= 0]).all():
            raise RetracError("the norms of the samples' gradients are not known")
        return timesteps, norms


def refuse_long_lists(run: Run, config: EvaluationConfig) -> None:
    """Refuse lists that hold everything.

    Raises:
        RetracError: there are no more samples than they are long.
    """
    size = run.size
    if config.k >= size:
        raise RetracError(f"--k must be less than the {size} samples, not {config.k}")


def own_influence(run: Run, way: AttributeConfig) -> AttributeConfig:
    """How self-influence is scored beside such scores: at the same checkpoints and visits."""
    scorer = Engine.of(run, way).scorer
    return AttributeConfig(
        tuple(method.name for method in by_events()),
        tuple(replay.checkpoint.epoch for replay in scorer.replays),
        scorer.config.replay,
        scorer.config.parameters,
        FAST,
        way.compute,
    )


def own_place(run: Run, own: AttributeConfig) -> Path:
    """Folder of self-influence, the same for all queries."""
    settings = settings_of(Scorer.of(run, own), None)
    return run.path / OUTLIERS / f"evaluated-{digest(settings)[:8]}"


def chosen_to_move(
    run: Run, queries: Queries, config: EvaluationConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the queries, and indices of the samples that are scored again for them."""
    return (
        np.array(evenly_spread(len(queries), config.moved_queries)),
        np.array(evenly_spread(len(run.dataset), config.moved)),
    )


def estimate_evaluation(
    run: Run,
    queries: Queries,
    way: AttributeConfig,
    config: EvaluationConfig,
    path: Path,
    generated: int,
) -> Estimate | None:
    """What it takes, scores included, but for the baselines; None where little is left.

    Args:
        run, queries, way, config, path: as of an `Evaluation`; queries yet to be generated may
            have others in their place.
        generated: how many of them are.

    Raises:
        RetracError: as `attribute`.
    """
    found = [estimate_attribution(run, queries, way, path, generated)]
    if config.moved and not (way.index or way.recorded):
        some, samples = chosen_to_move(run, queries, config)
        nowhere = path / "moved"
        found.append(estimate_samples(run, queries.take(some), samples, way, nowhere))
    if planted(run.dataset.ids).any():
        own = own_influence(run, way)
        found.append(estimate_self_influence(run, None, own, own_place(run, own)))
    return together(found)
