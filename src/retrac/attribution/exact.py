"""Exact scores of some samples, in pieces that are kept until the whole is done."""

import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from retrac.attribution.ahead import ahead
from retrac.attribution.asked import Queries
from retrac.attribution.memory import Split
from retrac.attribution.methods import Draws
from retrac.attribution.parts import Left, Parts
from retrac.attribution.replay import Replay
from retrac.attribution.sample_scores import samples_in_piece
from retrac.attribution.scorer import Scorer
from retrac.progress import progress


@dataclass(frozen=True, eq=False)
class Scored:
    """What is known of S samples and Q queries.

    Attributes:
        score: float32 `[M, K, Q, S]`, by checkpoint.
        norms, timesteps: for each checkpoint `[S, V]`, of the replayed visits.
        query_norms: `[K, Q, T']`, of the queries' gradients, averaged over noises.
        groups: float32 `[M, G, Q, S]`, of a single checkpoint, by group of visits; None without.
        layers: float32 `[M, L, Q, S]`, by group of layers, of all checkpoints; None without.
    """

    score: np.ndarray
    norms: list[np.ndarray]
    timesteps: list[np.ndarray]
    query_norms: np.ndarray
    groups: np.ndarray | None = None
    layers: np.ndarray | None = None


def exact_scores(scorer: Scorer, queries: Queries, samples: np.ndarray, parts: Parts) -> Scored:
    """Score some samples, given by their indices; pieces that are there are not computed again."""
    work = ExactWork(scorer, queries, samples, parts.names)
    work.do(parts)
    return work.assemble(parts)


class ExactWork:
    """The pieces into which the work falls, and the work.

    Args:
        scorer: of the run.
        queries: to score for.
        samples: indices.
        there: names of pieces; work that was begun goes on in blocks of the same size, though
            there may be more memory now.
    """

    def __init__(
        self, scorer: Scorer, queries: Queries, samples: np.ndarray, there: Iterable[str]
    ) -> None:
        self.scorer = scorer
        self.queries = queries
        self.samples = samples
        model = scorer.model(scorer.replays[-1])
        self.layers = len(scorer.layers(model).names) if scorer.config.by_layer else 0
        split: Split = scorer.split(model, len(queries))
        begun = [size for size in _block_sizes(there) if size <= split.queries]
        size = max(begun, default=split.queries)
        self.split = replace(split, queries=size)
        self.blocks = [
            np.arange(start, min(start + size, len(queries)))
            for start in range(0, len(queries), size)
        ]

    def left(self, there: Container[str]) -> Left:
        """What is not there yet, by the names of the pieces that are."""
        checkpoints = draws = visits = 0
        for replay in self.scorer.replays:
            missing = [
                (block, [s for name, s in self._pieces(replay, block).items() if name not in there])
                for block in self.blocks
            ]
            checkpoints += any(samples for _, samples in missing)
            draws += sum(len(block) * self.scorer.draws for block, samples in missing if samples)
            visits += sum(len(s) * len(replay.epochs) for _, samples in missing for s in samples)
        return Left(checkpoints, draws, visits)

    def do(self, parts: Parts) -> None:
        """Compute all parts that are not there yet."""
        total = sum(
            len(block) * self.scorer.draws + len(self.samples) * len(replay.epochs)
            for replay in self.scorer.replays
            for block in self.blocks
        )
        with progress("attribute", total, "gradients") as advance:
            for replay in self.scorer.replays:
                model: nn.Module | None = None
                for block in self.blocks:
                    pieces = self._pieces(replay, block)
                    missing = {name: s for name, s in pieces.items() if name not in parts}
                    done = sum(len(s) for name, s in pieces.items() if name not in missing)
                    advance(done * len(replay.epochs), note=f"epoch {replay.checkpoint.epoch}")
                    if not missing:
                        advance(len(block) * self.scorer.draws)
                        continue
                    model = model or self.scorer.model(replay)
                    self._do_block(model, replay, block, missing, parts, advance)

    def _do_block(
        self,
        model: nn.Module,
        replay: Replay,
        block: np.ndarray,
        missing: dict[str, np.ndarray],
        parts: Parts,
        advance: Callable[..., None],
    ) -> None:
        gradients = self.scorer.directions(
            model,
            replay,
            self.queries.take(block).asked(self.scorer.run, self.scorer.plan),
            [self.queries.ids[query] for query in block],
            self.split,
            lambda timesteps: advance(timesteps * self.scorer.plan.noises),
        )
        parts.put(self._name(replay, block), {"norms": gradients.norms.numpy()})
        loaded = ahead(missing.items(), lambda item: self.scorer.visits(replay, item[1]))
        for (name, samples), visits in loaded:
            found = self.scorer.scores(
                model, replay, samples, visits, gradients.directions, self.split
            )
            parts.put(name, found.arrays())
            advance(len(samples) * len(replay.epochs))

    def assemble(self, parts: Parts) -> Scored:
        """Put the parts together."""
        scores, norms, timesteps, query_norms = [], [], [], []
        for replay in self.scorer.replays:
            by_block, by_query = [], []
            for block in self.blocks:
                found = [parts.get(name) for name in self._pieces(replay, block)]
                by_block.append(np.concatenate([part["scores"] for part in found], axis=2))
                by_query.append(parts.get(self._name(replay, block))["norms"])
            scores.append(np.concatenate(by_block, axis=1))
            norms.append(np.concatenate([part["norms"] for part in found]))
            timesteps.append(np.concatenate([part["timesteps"] for part in found]))
            query_norms.append(np.concatenate(by_query))
        return Scored(
            np.stack(scores, axis=1),
            norms,
            timesteps,
            np.stack(query_norms),
            self._joined("groups", parts) if self.scorer.groups > 1 else None,
            self._joined("layers", parts) if self.scorer.config.by_layer else None,
        )

    def _joined(self, name: str, parts: Parts) -> np.ndarray:
        """What pieces have beside the scores, `[M, …, Q, S]`, over all checkpoints."""
        by_checkpoint = [
            np.concatenate(
                [
                    np.concatenate([parts.get(n)[name] for n in self._pieces(replay, block)], 3)
                    for block in self.blocks
                ],
                axis=2,
            )
            for replay in self.scorer.replays
        ]
        return np.asarray(np.sum(by_checkpoint, 0))

    def _pieces(self, replay: Replay, block: np.ndarray) -> dict[str, np.ndarray]:
        """Samples by the name of the part that holds their scores."""
        size = samples_in_piece(self.scorer.run.shape, len(replay.epochs))
        chunks = [self.samples[at : at + size] for at in range(0, len(self.samples), size)]
        return {f"{self._name(replay, block)}-samples-{chunk[0]:07d}": chunk for chunk in chunks}

    def _name(self, replay: Replay, block: np.ndarray) -> str:
        name = f"epoch-{replay.checkpoint.epoch:04d}-queries-{block[0]:05d}-{block[-1]:05d}"
        return name if self.scorer.kind is Draws.INTERVALS else f"{self.scorer.kind.value}-{name}"


def _block_sizes(names: Iterable[str]) -> list[int]:
    """Queries in the first block of earlier work."""
    found = (re.search(r"queries-00000-(\d+)", name) for name in names)
    return [int(match[1]) + 1 for match in found if match]
