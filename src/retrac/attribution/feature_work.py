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
from retrac.attribution.sample_features import SampleFeatures
from retrac.diffusion.measurements import Measurement
from retrac.gradients.layers import LayerGroups
from retrac.gradients.sketch_layout import SketchLayout
from retrac.progress import progress
from retrac.training.run import Checkpoint, Run


@dataclass(frozen=True, eq=False)
class FeatureWork:
    """The work of methods that share a feature, at one checkpoint.

    Attributes:
        run: whose samples are scored.
        checkpoint: the weights.
        load: loads them.
        methods: M, which share a feature.
        measurements: of the feature, those that there are.
        source: of the queries' draws.
        samples: gives the samples' features.
        lots: what is in memory at a time: all layers in sketches, or some of them whole.
        rows: draws in a pass.
        queries: Q of them.
        layer_groups: L, of which each layer is in one.
        by_layer: whether each group's share of the scores is wanted.
        layer_weights: float32 `[M, L]`; None where all count alike.
    """

    run: Run
    checkpoint: Checkpoint
    load: Callable[[], nn.Module]
    methods: Sequence[Method]
    measurements: Sequence[Measurement]
    source: Source
    samples: SampleFeatures
    lots: Sequence[SketchLayout]
    rows: int
    queries: Queries
    layer_groups: LayerGroups
    by_layer: bool = False
    layer_weights: np.ndarray | None = None

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
            for lot in range(len(self.lots)):
                draws += self.source.query_draws * len(self.queries)
                visits += self.samples.pending(self._lot(which, lot), which, lot, there)
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
                lots = range(len(self.lots))
                scored = [self._scores(model, which, lot, parts, advance) for lot in lots]
                parts.put(
                    self._bin(which),
                    {name: np.sum([each[name] for each in scored], 0) for name in scored[0]},
                )
                for lot in lots:
                    self.samples.forget(self._lot(which, lot), parts)

    def features(self) -> Iterator[tuple[Tensor, Tensor, Sequence[slice]]]:
        """Bin by bin the features themselves, over all draws: of queries `[R, Q, d]`, of samples
        `[R, N, d]`, and the numbers of each layer; for studies of metrics."""
        model = self.load()
        parts = Parts(None, {})
        for which in range(self.source.bins):
            for lot, layout in enumerate(self.lots):
                name = self._lot(which, lot)
                queries = self.of_queries(model, which, lot, silent)
                samples = self.samples.read(name, which, lot, model, parts, silent)
                yield queries.mean(), samples.mean(), layout.layers
                self.samples.forget(name, parts)

    def assemble(self, parts: Parts, name: str = "scores") -> np.ndarray:
        """The mean over bins, `[M, 1 + G, Q, N]`: all draws, then without each part of them; or by
        the name "layers" `[M, L, Q, N]`, of all draws."""
        total = sum(parts.get(self._bin(which))[name] for which in range(self.source.bins))
        return np.asarray(total / self.source.bins)

    def _scores(
        self, model: nn.Module, which: int, lot: int, parts: Parts, advance: Callable[..., None]
    ) -> dict[str, np.ndarray]:
        """What one bin and one lot of layers say: "scores" `[M, 1 + G, Q, N]`, and "layers" `[M, L,
        Q, N]` where these are wanted."""
        asked = self.of_queries(model, which, lot, advance)
        name = self._lot(which, lot)
        held = self.samples.read(name, which, lot, model, parts, advance)
        layers = self.lots[lot].layers
        share = len(layers) / sum(len(each.layers) for each in self.lots)
        scores = []
        places = self._places(lot)
        by_layer = []
        for at, without in enumerate(variants(held.parts)):
            queries = asked.mean(without)
            samples = held.mean(without).to(queries.dtype)  # those of an index are in float32
            for place, method in enumerate(self.methods):
                turned = turned_queries(method, queries, samples, layers)
                if self.layer_weights is not None:
                    weights = torch.from_numpy(self.layer_weights[place])[places]
                    widths = torch.tensor([layer.stop - layer.start for layer in layers])
                    turned = turned * weights.repeat_interleave(widths)
                scores.append((share * products(method, turned, samples)).numpy())
                if self.by_layer and at == 0:
                    each = products_by_layer(
                        method, turned, samples, layers, places, len(self.layer_groups.names)
                    )
                    by_layer.append((share * each).numpy())
        shape = (-1, len(self.methods), len(self.queries), self.run.size)
        found = {"scores": np.stack(scores).reshape(shape).swapaxes(0, 1)}
        return {**found, "layers": np.stack(by_layer)} if by_layer else found

    def _places(self, lot: int) -> list[int]:
        """Which group each layer of a lot is in."""
        return [self.layer_groups.place[first] for first in self.lots[lot].first_parameters]

    def of_queries(
        self, model: nn.Module, which: int, lot: int, advance: Callable[..., None]
    ) -> Features:
        """Features of all queries in one bin and one lot of layers."""
        layout = self.lots[lot]
        return features(
            model,
            self.run.objective,
            self.measurements,
            self.source.query_rows(self.queries, which, self.rows),
            layout.projection,
            layout.size,
            len(self.queries),
            self.source.parts,
            self.source.query_group,
            self.rows,
            lambda image: f"query {self.queries.ids[image]!r} at {self.checkpoint.path.name}",
            advance,
        )

    def _bin(self, which: int) -> str:
        return f"{self.name}-bin-{which:03d}"

    def _lot(self, which: int, lot: int) -> str:
        return f"{self._bin(which)}-layers-{lot:03d}"


def turned_queries(
    method: Method, queries: Tensor, samples: Tensor, layers: Sequence[slice]
) -> Tensor:
    """Queries' features of one bin under a method's metric, `[R, Q, d]`.

    Args:
        method: with its metric.
        queries: `[R, Q, d]`, of R measurements.
        samples: `[R, N, d]`, to which the metric is fitted.
        layers: the numbers of each layer.
    """
    pairs = zip(queries, samples, strict=True)
    return torch.stack([method.metric.fit(held, layers)(asked) for asked, held in pairs])


def products(method: Method, turned: Tensor, samples: Tensor) -> Tensor:
    """A method's scores by the features of one bin, `[Q, N]`: the sum over measurements.

    Args:
        method: whether samples are brought to unit norm.
        turned: `[R, Q, d]`, of `turned_queries`.
        samples: `[R, N, d]`.
    """
    total = turned.new_zeros(turned.shape[1], samples.shape[1])
    for asked, held in zip(turned, samples, strict=True):
        scores = asked @ held.mT
        total += scores * inverse_norms(held) if method.unit_samples else scores
    return total


def products_by_layer(
    method: Method,
    turned: Tensor,
    samples: Tensor,
    layers: Sequence[slice],
    places: Sequence[int],
    groups: int,
) -> Tensor:
    """What each of L groups of layers adds to the `products`, `[L, Q, N]`.

    Args:
        method, turned, samples: as for `products`.
        layers: the numbers of each layer.
        places: the group of each layer.
        groups: L.
    """
    total = turned.new_zeros(groups, turned.shape[1], samples.shape[1])
    for asked, held in zip(turned, samples, strict=True):
        factors = inverse_norms(held) if method.unit_samples else 1
        for place, layer in zip(places, layers, strict=True):
            total[place] += asked[:, layer] @ held[:, layer].mT * factors
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
