"""Where samples' features come from: computed now, piece by piece, or read from an index."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from retrac.attribution.draws import Source
from retrac.attribution.features import Features, features
from retrac.attribution.parts import Parts
from retrac.diffusion.measurements import Measurement
from retrac.gradients.sketch_layout import SketchLayout
from retrac.store.bins import StoredBins
from retrac.training.run import Checkpoint, Run

CHUNK = 256
"""Samples whose features are a finished piece of work, at the most."""


class SampleFeatures(Protocol):
    """Features of all samples at a checkpoint, by bin of timesteps and lot of layers."""

    def pending(self, name: str, which: int, lot: int, there: Container[str]) -> int:
        """How many gradients are still to be computed.

        Args:
            name: of this bin and lot, with which its pieces begin.
            which: the bin.
            lot: number of the lot.
            there: names of the pieces that are there.
        """
        ...

    def read(
        self,
        name: str,
        which: int,
        lot: int,
        model: nn.Module,
        parts: Parts,
        advance: Callable[[int], None],
    ) -> Features:
        """Features of all samples.

        Args:
            name, which, lot: as for `pending`.
            model: the network at the checkpoint.
            parts: pieces that are there are not computed again.
            advance: called with the gradients of each pass when it is done.
        """
        ...

    def forget(self, name: str, parts: Parts) -> None:
        """Drop the pieces of a bin and lot."""
        ...


@dataclass(frozen=True, eq=False)
class ComputedFeatures:
    """Features that are computed now.

    Attributes:
        run: whose samples they are of.
        checkpoint: the weights.
        measurements: R of them.
        source: of the draws.
        lots: of layers that are in memory together.
        rows: draws in a pass.
    """

    run: Run
    checkpoint: Checkpoint
    measurements: Sequence[Measurement]
    source: Source
    lots: Sequence[SketchLayout]
    rows: int

    def pending(self, name: str, which: int, lot: int, there: Container[str]) -> int:
        """The draws of the chunks that are not there."""
        return sum(
            self.source.sample_draws(chunk, which)
            for piece, chunk in self._pieces(name).items()
            if piece not in there
        )

    def read(
        self,
        name: str,
        which: int,
        lot: int,
        model: nn.Module,
        parts: Parts,
        advance: Callable[[int], None],
    ) -> Features:
        """Compute what is not there yet."""
        pieces = []
        for piece, chunk in self._pieces(name).items():
            if piece not in parts:
                made = self.of_chunk(chunk, which, lot, model, advance)
                parts.put(piece, {"sums": made.sums.numpy(), "counts": made.counts.numpy()})
            arrays = parts.get(piece)
            pieces.append(
                Features(torch.from_numpy(arrays["sums"]), torch.from_numpy(arrays["counts"]))
            )
        return Features.joined(pieces)

    def forget(self, name: str, parts: Parts) -> None:
        """Drop all chunks."""
        for piece in self._pieces(name):
            parts.drop(piece)

    def of_chunk(
        self,
        samples: np.ndarray,
        which: int,
        lot: int,
        model: nn.Module,
        advance: Callable[[int], None],
    ) -> Features:
        """Features of some samples in one bin.

        Raises:
            RetracError: a gradient that is not finite; sample and checkpoint are named.
        """
        ids, layout = self.run.dataset.ids, self.lots[lot]
        return features(
            model,
            self.run.objective,
            self.measurements,
            self.source.sample_rows(samples, which, self.rows),
            layout.projection,
            layout.size,
            len(samples),
            self.source.parts,
            self.source.group,
            self.rows,
            lambda image: f"sample {ids[int(samples[image])]!r} at {self.checkpoint.path.name}",
            advance,
        )

    def _pieces(self, name: str) -> dict[str, np.ndarray]:
        """Samples by the name of their piece."""
        every = np.arange(self.run.size)
        starts = range(0, len(every), CHUNK)
        return {f"{name}-samples-{start:07d}": every[start : start + CHUNK] for start in starts}


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """Features in an index: sums of one or several checkpoints, added up.

    Attributes:
        places: of these checkpoints.
        measurements: places of R measurements among those that are stored.
        parts: G; the parts of all checkpoints are dealt out to them in turn.
    """

    places: Sequence[StoredBins]
    measurements: Sequence[int]
    parts: int

    def pending(self, name: str, which: int, lot: int, there: Container[str]) -> int:
        """None."""
        return 0

    def read(
        self,
        name: str,
        which: int,
        lot: int,
        model: nn.Module,
        parts: Parts,
        advance: Callable[[int], None],
    ) -> Features:
        """Read them.

        Raises:
            RetracError: what is there is damaged.
        """
        total: Features | None = None
        turn = 0
        for place in self.places:
            sums, counts = place.read(which)  # `[N, R, G, d]`, `[N, G]`
            if total is None:
                samples, _, _, size = sums.shape
                total = Features(
                    torch.zeros(len(self.measurements), self.parts, samples, size),
                    torch.zeros(self.parts, samples, dtype=torch.int64),
                )
            for part in range(counts.shape[1]):
                each = torch.from_numpy(sums[:, self.measurements, part])
                total.sums[:, turn % self.parts] += each.transpose(0, 1)
                total.counts[turn % self.parts] += torch.from_numpy(counts[:, part])
                turn += 1
        assert total is not None  # there is a place
        return total

    def forget(self, name: str, parts: Parts) -> None:
        """There is nothing to drop."""
