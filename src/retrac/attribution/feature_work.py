"""Scores by features: bin after bin, what methods make of samples' and queries' features."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from retrac.attribution.asked import Queries
from retrac.attribution.draws import Source
from retrac.attribution.features import Features, features, silent, variants
from retrac.attribution.methods import Method
from retrac.attribution.metrics import inverse_norms
from retrac.attribution.parts import Left, Parts
from retrac.diffusion.measurements import Measurement
from retrac.gradients.sketch import Projection
from retrac.progress import progress
from retrac.training.run import Checkpoint, Run

CHUNK = 256
"""Samples whose features are a finished piece of work, at the most."""


@dataclass(frozen=True, eq=False)
class FeatureWork:
    """The work of methods that share a feature, at one checkpoint.

    Attributes:
        run: whose samples are scored.
        checkpoint: the weights.
        load: loads them.
        methods: M, which share a feature.
        measurements: of the feature, those that the run can give.
        source: of the draws.
        projections: what is in memory at a time: all layers in sketches, or some of them whole.
        layers: for each projection the numbers of each layer.
        rows: draws in a pass.
        queries: Q of them.
    """

    run: Run
    checkpoint: Checkpoint
    load: Callable[[], nn.Module]
    methods: Sequence[Method]
    measurements: Sequence[Measurement]
    source: Source
    projections: Sequence[Projection]
    layers: Sequence[Sequence[slice]]
    rows: int
    queries: Queries

    @property
    def name(self) -> str:
        """Of its pieces."""
        told = "-".join(measurement.__name__ for measurement in self.measurements)
        kind = self.methods[0].draws.value
        return f"epoch-{self.checkpoint.epoch:04d}-{kind}-{told}"

    def left(self, there: Container[str]) -> Left:
        """What is not there yet, by the names of the pieces that are."""
        draws = visits = 0
        for which in range(self.source.bins):
            if self._bin(which) in there:
                continue
            for number in range(len(self.projections)):
                draws += self.source.query_draws * len(self.queries)
                visits += sum(
                    self.source.sample_draws(chunk, which)
                    for chunk in self._chunks
                    if self._piece(which, number, chunk) not in there
                )
        return Left(int(draws + visits > 0), draws, visits)

    def bins_left(self, there: Container[str]) -> int:
        """Bins that are not scored yet."""
        return sum(self._bin(which) not in there for which in range(self.source.bins))

    @property
    def variants(self) -> int:
        """Ways in which a bin is scored: by all draws, and without each part of them."""
        return len(list(variants(self.source.parts)))

    def do(self, parts: Parts) -> None:
        """Score, bin after bin; what is there is not computed again."""
        todo = self.left(parts.names)
        model: nn.Module | None = None
        with progress("attribute", todo.draws + todo.visits, "gradients") as advance:
            for which in range(self.source.bins):
                if self._bin(which) in parts:
                    continue
                model = model or self.load()
                lots = range(len(self.projections))
                scores = [self._scores(model, which, lot, parts, advance) for lot in lots]
                parts.put(self._bin(which), {"scores": np.sum(scores, 0)})
                for number in range(len(self.projections)):
                    for chunk in self._chunks:
                        parts.drop(self._piece(which, number, chunk))

    def features(self) -> Iterator[tuple[Tensor, Tensor, Sequence[slice]]]:
        """Bin by bin the features themselves, over all draws: of queries `[R, Q, d]`, of samples
        `[R, N, d]`, and the numbers of each layer; for studies of metrics."""
        model = self.load()
        parts = Parts(None, {})
        for which in range(self.source.bins):
            for number, layers in enumerate(self.layers):
                queries = self.of_queries(model, which, number, silent)
                samples = list(self._sample_features(model, which, number, parts, silent))
                yield queries.mean(), Features.joined(samples).mean(), layers
                for chunk in self._chunks:
                    parts.drop(self._piece(which, number, chunk))

    def assemble(self, parts: Parts) -> np.ndarray:
        """The mean over bins, `[M, 1 + G, Q, N]`: all draws, then without each part of them."""
        total = sum(parts.get(self._bin(which))["scores"] for which in range(self.source.bins))
        return np.asarray(total / self.source.bins, np.float32)

    def _scores(
        self, model: nn.Module, which: int, number: int, parts: Parts, advance: Callable[..., None]
    ) -> np.ndarray:
        """What one bin and one lot of layers say, `[M, 1 + G, Q, N]`."""
        asked = self.of_queries(model, which, number, advance)
        held = Features.joined(list(self._sample_features(model, which, number, parts, advance)))
        share = len(self.layers[number]) / sum(map(len, self.layers))
        every = list(variants(held.parts))
        scores = np.empty(
            (len(self.methods), len(every), len(self.queries), self.run.size), np.float32
        )
        for at, without in enumerate(every):
            queries, samples = asked.mean(without), held.mean(without)
            for place, method in enumerate(self.methods):
                found = bin_scores(method, queries, samples, self.layers[number])
                scores[place, at] = (share * found).numpy()
        return scores

    def of_queries(
        self, model: nn.Module, which: int, number: int, advance: Callable[..., None]
    ) -> Features:
        """Features of all queries in one bin and one lot of layers."""
        return features(
            model,
            self.run.objective,
            self.measurements,
            self.source.query_rows(self.queries, which, self.rows),
            self.projections[number],
            self.layers[number][-1].stop,
            len(self.queries),
            self.source.parts,
            self.source.query_group,
            self.rows,
            lambda image: f"query {self.queries.ids[image]!r} at {self.checkpoint.path.name}",
            advance,
        )

    def _sample_features(
        self,
        model: nn.Module,
        which: int,
        number: int,
        parts: Parts,
        advance: Callable[..., None],
    ) -> Iterator[Features]:
        for chunk in self._chunks:
            name = self._piece(which, number, chunk)
            if name not in parts:
                found = self.of_samples(model, which, number, chunk, advance)
                parts.put(name, {"sums": found.sums.numpy(), "counts": found.counts.numpy()})
            piece = parts.get(name)
            yield Features(torch.from_numpy(piece["sums"]), torch.from_numpy(piece["counts"]))

    def of_samples(
        self,
        model: nn.Module,
        which: int,
        number: int,
        chunk: np.ndarray,
        advance: Callable[..., None],
    ) -> Features:
        """Features of some samples in one bin and one lot of layers."""
        ids = self.run.dataset.ids
        return features(
            model,
            self.run.objective,
            self.measurements,
            self.source.sample_rows(chunk, which, self.rows),
            self.projections[number],
            self.layers[number][-1].stop,
            len(chunk),
            self.source.parts,
            self.source.group,
            self.rows,
            lambda image: f"sample {ids[int(chunk[image])]!r} at {self.checkpoint.path.name}",
            advance,
        )

    @property
    def _chunks(self) -> list[np.ndarray]:
        every = np.arange(self.run.size)
        return [every[start : start + CHUNK] for start in range(0, len(every), CHUNK)]

    def _bin(self, which: int) -> str:
        return f"{self.name}-bin-{which:03d}"

    def _piece(self, which: int, number: int, chunk: np.ndarray) -> str:
        return f"{self._bin(which)}-layers-{number:03d}-samples-{chunk[0]:07d}"


def bin_scores(method: Method, queries: Tensor, samples: Tensor, layers: Sequence[slice]) -> Tensor:
    """A method's scores by the features of one bin, `[Q, N]`: the sum over measurements.

    Args:
        method: with its metric.
        queries: `[R, Q, d]`.
        samples: `[R, N, d]`.
        layers: the numbers of each layer.
    """
    total = queries.new_zeros(queries.shape[1], samples.shape[1])
    for asked, held in zip(queries, samples, strict=True):
        scores = method.metric.fit(held, layers)(asked) @ held.mT
        total += scores * inverse_norms(held) if method.unit_samples else scores
    return total


def pseudo_groups(scores: np.ndarray) -> np.ndarray:
    """Contributions of parts of the draws that add up to the scores and differ as these would.

    Jackknife: without part g the score is s₍₋g₎; its contribution is
    `s/G + (G-1)/G (mean s₍₋₎ - s₍₋g₎)`, whose spread over parts gives the jackknife's error
    (Efron and Stein 1981).

    Args:
        scores: `[1 + G, …]`, with all draws, then without each part.

    Returns:
        `[G, …]`.
    """
    whole, without = scores[0], scores[1:]
    count = len(without)
    return whole / count + (count - 1) / count * (without.mean(0) - without)
