"""Attribution: every training sample's score for every query, by checkpoint and method."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from diffusers import UNet2DModel

from retrac.files import remove
from retrac.influence.attribution import KIND, Attribution
from retrac.influence.config import AttributeConfig, ComputeConfig, PlanConfig
from retrac.influence.memory import Split
from retrac.influence.parts import Parts, digest, parts_beside
from retrac.influence.queries import Queries, open_queries
from retrac.influence.replay import Replay
from retrac.influence.scorer import Scorer, stack_visits
from retrac.influence.store import open_result, refuse_other
from retrac.progress import progress
from retrac.training.run import Run

CHUNK = 512
"""Visits in a finished piece of work."""
SHOWN = 20
"""Samples at each end of a query's list whose images are kept with the scores."""


def attribute(
    run: Run,
    queries: Queries | str,
    methods: Sequence[str] = ("tracin", "retrac"),
    *,
    checkpoints: Sequence[int] = (),
    replay: str = "last",
    parameters: str = ".*",
    plan: PlanConfig | None = None,
    compute: ComputeConfig | None = None,
    query_seed: int = 0,
    output: str | Path | None = None,
) -> Attribution:
    """Score all training samples of a run for some queries (Xie et al. 2024, eq. 4 and 7).

    Args:
        run: a training run.
        queries: images, or a text such as "generated:8", "train:16" or a path.
        methods: "tracin", "retrac" or both, at no extra cost.
        checkpoints: epochs of the checkpoints to use; all by default.
        replay: epochs of each interval to replay: "last", "all", or a number.
        parameters: regular expression; only parameters in whose name it is found count.
        plan: the draws at which queries are looked at.
        compute: device and memory.
        query_seed: of generated queries.
        output: a folder for the result. Interrupted work is kept beside it and taken up again;
            a result of the same settings that is already there is opened.

    Raises:
        RetracError: unknown method, missing checkpoint, changed dataset, non-finite gradient, too
            little memory or space, or `output` holds something else.
    """
    config = AttributeConfig(
        tuple(methods),
        tuple(checkpoints),
        replay,
        parameters,
        plan or PlanConfig(),
        compute or ComputeConfig(),
    )
    scorer = Scorer.of(run, config)
    if isinstance(queries, str):
        queries = open_queries(run, queries, query_seed)
    settings = {**scorer.settings, "queries": digest(queries.images, list(queries.ids))}
    path = Path(output) if output is not None else None
    if path is not None and path.exists():
        found = Attribution(*open_result(path, KIND))
        refuse_other(path, found.config, settings)
        remove(parts_beside(path))  # of a run that was stopped just after it had saved
        return found
    parts = Parts(path and parts_beside(path), settings)
    work = _Work(scorer, queries, parts)
    work.do()
    result = Attribution(work.assemble(), {**settings, "run": run.facts})
    if path is not None:
        result.save(path)
        parts.discard()
    return result


class _Work:
    def __init__(self, scorer: Scorer, queries: Queries, parts: Parts) -> None:
        self.scorer = scorer
        self.queries = queries
        self.parts = parts
        self.dataset = scorer.run.dataset
        self.split: Split = scorer.split(scorer.model(scorer.replays[-1]), len(queries))
        size = self.split.queries
        self.blocks = [
            np.arange(start, min(start + size, len(queries)))
            for start in range(0, len(queries), size)
        ]

    def do(self) -> None:
        """Compute all parts that are not there yet."""
        total = sum(
            len(block) * self.scorer.draws + len(self.dataset) * len(replay.epochs)
            for replay in self.scorer.replays
            for block in self.blocks
        )
        with progress("attribute", total, "gradients") as advance:
            for replay in self.scorer.replays:
                model: UNet2DModel | None = None
                for block in self.blocks:
                    pieces = self._pieces(replay, block)
                    missing = {name: s for name, s in pieces.items() if name not in self.parts}
                    done = sum(len(s) for name, s in pieces.items() if name not in missing)
                    advance(done * len(replay.epochs), note=f"epoch {replay.checkpoint.epoch}")
                    if not missing:
                        advance(len(block) * self.scorer.draws)
                        continue
                    model = model or self.scorer.model(replay)
                    self._do_block(model, replay, block, missing, advance)

    def _do_block(
        self,
        model: UNet2DModel,
        replay: Replay,
        block: np.ndarray,
        missing: dict[str, np.ndarray],
        advance: Any,
    ) -> None:
        gradients = self.scorer.directions(
            model,
            replay,
            self.queries.tensors()[block],
            [self.queries.ids[query] for query in block],
            self.split,
            lambda timesteps: advance(timesteps * self.scorer.plan.noises),
        )
        self.parts.put(_name(replay, block), {"norms": gradients.norms.numpy()})
        for name, samples in missing.items():
            found = self.scorer.scores(model, replay, samples, gradients.directions, self.split)
            self.parts.put(name, found.arrays())
            advance(len(samples) * len(replay.epochs))

    def assemble(self) -> xr.Dataset:
        """Put the parts together."""
        scores, norms, timesteps, query_norms = [], [], [], []
        for replay in self.scorer.replays:
            by_block = []
            for block in self.blocks:
                found = [self.parts.get(name) for name in self._pieces(replay, block)]
                by_block.append(np.concatenate([part["scores"] for part in found], axis=2))
                query_norms.append(self.parts.get(_name(replay, block))["norms"])
            scores.append(np.concatenate(by_block, axis=1))
            norms.append(np.concatenate([part["norms"] for part in found]))
            timesteps.append(np.concatenate([part["timesteps"] for part in found]))
        replays, plan = self.scorer.replays, self.scorer.plan
        score = np.stack(scores, axis=1)
        shown = _ends(score.sum(1), SHOWN)
        image = ("channel", "row", "column")
        return xr.Dataset(
            {
                "score": (("method", "checkpoint", "query", "sample"), score),
                "train_weight": (
                    ("checkpoint", "sample"),
                    np.stack([replay.total for replay in replays]),
                ),
                "train_timestep": (("checkpoint", "sample", "visit"), stack_visits(timesteps, -1)),
                "train_norm": (("checkpoint", "sample", "visit"), stack_visits(norms, np.nan)),
                "query_norm": (
                    ("checkpoint", "query", "timestep"),
                    np.concatenate(query_norms).reshape(len(replays), len(self.queries), -1),
                ),
                "query_image": (("query", *image), self.queries.images),
                "sample_image": (("shown", *image), self.dataset.images[shown]),
            },
            coords={
                "method": list(self.scorer.config.methods),
                "checkpoint": [replay.checkpoint.epoch for replay in replays],
                "timestep": plan.timesteps.numpy(),
                "shown": shown,
                "query_id": ("query", list(self.queries.ids)),
                "query_label": ("query", list(self.queries.labels)),
                "sample_id": ("sample", list(self.dataset.ids)),
                "sample_label": (
                    "sample",
                    list(self.dataset.labels or ("",) * len(self.dataset)),
                ),
            },
        )

    def _pieces(self, replay: Replay, block: np.ndarray) -> dict[str, np.ndarray]:
        """Samples by the name of the part that holds their scores."""
        size = max(1, CHUNK // len(replay.epochs))
        every = np.arange(len(self.dataset))
        chunks = [every[start : start + size] for start in range(0, len(every), size)]
        return {f"{_name(replay, block)}-samples-{chunk[0]:07d}": chunk for chunk in chunks}


def _name(replay: Replay, block: np.ndarray) -> str:
    return f"epoch-{replay.checkpoint.epoch:04d}-queries-{block[0]:05d}-{block[-1]:05d}"


def _ends(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of samples within `count` of either end of some list `[M, Q, N]`, rising."""
    order = np.argsort(scores, axis=2)
    return np.unique(np.concatenate((order[..., :count], order[..., -count:]), axis=2))
