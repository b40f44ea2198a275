"""Self-influence: a sample's score on itself. Outliers have a large one."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from retrac.attribution.config import TRAINED, AttributeConfig, ComputeConfig, PlanConfig
from retrac.attribution.memory import Split
from retrac.attribution.methods import FOR_OUTLIERS, by_events
from retrac.attribution.parts import Left, Parts, parts_beside
from retrac.attribution.queries import training_samples
from retrac.attribution.ranking import Ranked, evenly_spread, ranked
from retrac.attribution.replay import Replay
from retrac.attribution.sample_scores import SampleScores
from retrac.attribution.scorer import Scorer, stack_visits
from retrac.attribution.store import open_result, refuse_other, save_result
from retrac.errors import RetracError, unknown
from retrac.files import remove
from retrac.progress import progress
from retrac.training.run import Run

KIND = "analysis of self-influence"
BLOCK = 32
"""Samples in a finished piece of work."""


@dataclass(frozen=True, eq=False)
class SelfInfluence:
    """Scores of samples on themselves.

    Attributes:
        dataset: `score[method, checkpoint, sample]`, with `sample` the index in the training set,
            `train_timestep[checkpoint, sample, visit]`, `image[sample, …]` uint8 and the
            coordinates `sample_id`, `sample_label`.
        config: how it was computed, and the facts of the run.
    """

    dataset: xr.Dataset
    config: Mapping[str, Any]

    def ranked(self, method: str = FOR_OUTLIERS, k: int | None = None) -> list[Ranked]:
        """Samples by self-influence, largest first; all of them without k."""
        data = self.dataset
        methods = [str(name) for name in data["method"].values]
        if method not in methods:
            raise unknown("method", method, methods)
        scores = data["score"].sum("checkpoint", skipna=False).sel({"method": method}).values
        return ranked(data, scores, np.argsort(-scores, kind="stable")[:k])

    def image(self, sample: int) -> np.ndarray:
        """The image of a sample, uint8 `[C, H, W]`."""
        return self.dataset["image"].sel(sample=sample).values

    @staticmethod
    def open(path: str | Path) -> "SelfInfluence":
        """Read a folder that `self_influence` wrote.

        Raises:
            RetracError: absent, or damaged.
        """
        return SelfInfluence(*open_result(Path(path), KIND))


def self_influence(
    run: Run,
    samples: Sequence[int] | None = None,
    *,
    checkpoints: Sequence[int] = (),
    replay: str = "last",
    parameters: str = TRAINED,
    plan: PlanConfig | None = None,
    compute: ComputeConfig | None = None,
    output: str | Path | None = None,
) -> SelfInfluence:
    """Score samples on themselves, by every method: τ(i, i).

    Args:
        run: a training run.
        samples: their indices; all by default.
        checkpoints, replay, parameters, plan, compute: as for `attribute`.
        output: a folder for the result; interrupted work beside it is taken up again.

    Raises:
        RetracError: as `attribute`.
    """
    config = AttributeConfig(
        tuple(method.name for method in by_events()),
        tuple(checkpoints),
        replay,
        parameters,
        plan or PlanConfig(),
        compute or ComputeConfig(),
    )
    scorer = Scorer.of(run, config)
    indices = np.arange(len(run.dataset)) if samples is None else np.unique(samples)
    settings = settings_of(scorer, samples)
    path = Path(output) if output is not None else None
    if path is not None and path.exists():
        found = SelfInfluence.open(path)
        refuse_other(path, found.config, settings)
        remove(parts_beside(path))  # of a run that was stopped just after it had saved
        return found
    parts = Parts(path and parts_beside(path), settings)
    blocks = blocks_of(indices)
    _compute(scorer, blocks, parts)
    result = SelfInfluence(
        _assemble(scorer, indices, blocks, parts), {**settings, "run": run.facts}
    )
    if path is not None:
        save_result(path, KIND, result.dataset, result.config)
        parts.discard()
    return result


def settings_of(scorer: Scorer, samples: Sequence[int] | None) -> dict[str, Any]:
    """What decides the result, as JSON values."""
    chosen = "all" if samples is None else [int(index) for index in np.unique(samples)]
    return {**scorer.settings, "samples": chosen}


def blocks_of(indices: np.ndarray) -> list[np.ndarray]:
    """The samples of each finished piece of work."""
    return [indices[start : start + BLOCK] for start in range(0, len(indices), BLOCK)]


def left(scorer: Scorer, blocks: Sequence[np.ndarray], there: Container[str]) -> Left:
    """What is not there yet, by the names of the pieces that are."""
    checkpoints = draws = visits = 0
    for epoch, replay in enumerate(scorer.replays):
        missing = sum(len(block) for block in blocks if _name(epoch, block) not in there)
        checkpoints += missing > 0
        draws += missing * scorer.draws
        visits += missing * len(replay.epochs)
    return Left(checkpoints, draws, visits)


def check_method(method: str) -> None:
    """Refuse a method that does not exist.

    Raises:
        RetracError: with the nearest one that does.
    """
    known = [each.name for each in by_events()]
    if method not in known:
        raise unknown("method", method, known)


def spread(size: int, count: int | None) -> list[int] | None:
    """Indices of `count` samples, evenly spread over `size`; None, for all, without a count.

    Raises:
        RetracError: fewer than one.
    """
    if count is None:
        return None
    if count < 1:
        raise RetracError(f"--samples must be at least 1, not {count}")
    return evenly_spread(size, count)


def _compute(scorer: Scorer, blocks: list[np.ndarray], parts: Parts) -> None:
    count = sum(len(block) for block in blocks)
    total = scorer.draws * count * len(scorer.replays)
    with progress("self-influence", total, "gradients") as advance:
        for epoch, replay in enumerate(scorer.replays):
            if all(_name(epoch, block) in parts for block in blocks):
                advance(scorer.draws * count)
                continue
            model = scorer.model(replay)
            split = scorer.split(model, BLOCK)
            for block in blocks:
                if _name(epoch, block) in parts:
                    advance(scorer.draws * len(block))
                    continue
                scores, timesteps = [], []
                for start in range(0, len(block), split.queries):
                    samples = block[start : start + split.queries]
                    found = _of_block(scorer, model, replay, samples, split, advance)
                    scores.append(np.diagonal(found.scores, axis1=1, axis2=2))
                    timesteps.append(found.timesteps)
                parts.put(
                    _name(epoch, block),
                    {
                        "scores": np.concatenate(scores, axis=1),
                        "timesteps": np.concatenate(timesteps),
                    },
                )


def _of_block(
    scorer: Scorer,
    model: nn.Module,
    replay: Replay,
    samples: np.ndarray,
    split: Split,
    advance: Callable[..., None],
) -> SampleScores:
    """Some samples' scores on each other; their directions are let go before the next are made."""
    images = training_samples(scorer.run, "", [int(index) for index in samples])
    directions = scorer.directions(
        model,
        replay,
        images.asked(scorer.run, scorer.plan),
        images.ids,
        split,
        lambda done: advance(done * scorer.plan.noises),
    ).directions
    visits = scorer.visits(replay, samples)
    return scorer.scores(model, replay, samples, visits, directions, split)


def _assemble(
    scorer: Scorer, indices: np.ndarray, blocks: list[np.ndarray], parts: Parts
) -> xr.Dataset:
    found = [
        [parts.get(_name(epoch, block)) for block in blocks] for epoch in range(len(scorer.replays))
    ]
    score = np.stack(
        [np.concatenate([part["scores"] for part in row], axis=1) for row in found], axis=1
    )
    timesteps = [np.concatenate([part["timesteps"] for part in row]) for row in found]
    weights = [replay.total[indices] for replay in scorer.replays]
    samples = training_samples(scorer.run, "", [int(index) for index in indices])
    return xr.Dataset(
        {
            "score": (("method", "checkpoint", "sample"), score),
            "train_timestep": (
                ("checkpoint", "sample", "visit"),
                stack_visits(timesteps, weights, -1),
            ),
            "image": (("sample", "channel", "row", "column"), samples.images),
        },
        coords={
            "method": [method.name for method in scorer.methods],
            "checkpoint": [replay.checkpoint.epoch for replay in scorer.replays],
            "sample": indices,
            "sample_id": ("sample", list(samples.ids)),
            "sample_label": ("sample", list(samples.labels)),
        },
    )


def _name(epoch: int, block: np.ndarray) -> str:
    return f"checkpoint-{epoch:04d}-samples-{block[0]:07d}"
