"""Where features are taken: bins of timesteps, and in each the draws of samples and of queries.

Samples and queries are drawn at the same timesteps, every image with noises of its own, which come
in pairs ε and -ε. Draws fall into a few parts that have neither timesteps nor noises in common, so
that leaving out one after the other shows how sure a score is.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from retrac.attribution.asked import Queries
from retrac.attribution.plan import Plan
from retrac.attribution.queries import training_samples
from retrac.diffusion.shown import Shown, together
from retrac.training.run import Run

PARTS = 4
"""Parts into which draws fall at the most, unless said otherwise."""


class Rows(NamedTuple):
    """B draws.

    Attributes:
        batch: samples, timesteps and noises.
        image: int64 `[B]`, whose they are, counted from 0.
        part: int64 `[B]`, of the draws.
    """

    batch: Shown
    image: Tensor
    part: Tensor

    def slice(self, rows: slice) -> "Rows":
        """Some of them."""
        return Rows(self.batch.rows(rows), self.image[rows], self.part[rows])


class Source(Protocol):
    """Draws by bin."""

    @property
    def bins(self) -> int:
        """How many features of each image and measurement there are."""
        ...

    @property
    def parts(self) -> int:
        """G, parts of the draws of a bin."""
        ...

    def sample_rows(self, samples: np.ndarray, which: int, most: int) -> Iterator[Rows]:
        """Draws of some samples in one bin, about `most` at a time."""
        ...

    def query_rows(self, queries: Queries, which: int, most: int) -> Iterator[Rows]:
        """Draws of queries in one bin, about `most` at a time."""
        ...

    @property
    def query_draws(self) -> int:
        """Of each query in each bin."""
        ...

    def sample_draws(self, samples: np.ndarray, which: int) -> int:
        """Of all these samples together in one bin."""
        ...

    @property
    def settings(self) -> list[int]:
        """What decides the draws of queries beside their seed: bins, parts, timesteps of a part,
        and noises at each."""
        ...

    @property
    def group(self) -> int:
        """Consecutive draws of samples that always have image and part in common."""
        ...

    @property
    def query_group(self) -> int:
        """Likewise of queries."""
        ...


@dataclass(frozen=True, eq=False)
class Grid:
    """Timesteps, and at each of them pairs of noises.

    Attributes:
        run: whose samples and network they are for.
        timesteps: int64 `[bins, G, t]`, of each part.
        noises: m at each timestep of a part; even.
        seed: of the noises.
        epoch: of the checkpoint, which has noises of its own.
    """

    run: Run
    timesteps: Tensor
    noises: int
    seed: int
    epoch: int

    @staticmethod
    def spread(
        run: Run, count: int, bins: int, noises: int, seed: int, epoch: int, most_parts: int = PARTS
    ) -> "Grid":
        """Put `count` timesteps evenly over [0, T), an equal number in each bin.

        `noises` at each of them, in pairs, are dealt out to as many of `most_parts` parts as can
        have equally many; in place of the timestep each part has one near by, so that all of them
        are evenly spread. Seed 0 has them in the middles of equal lengths; every other seed
        elsewhere in these.
        """
        pairs = noises // 2
        parts = max(part for part in range(1, most_parts + 1) if pairs % part == 0)
        place = (np.arange(parts) + _between(seed)) / parts
        steps = (np.arange(count)[:, None] + place) * run.timesteps / count  # [t, G]
        timesteps = torch.from_numpy(steps.astype(np.int64)).unflatten(0, (bins, -1)).mT
        return Grid(run, timesteps, noises // parts, seed, epoch)

    @property
    def bins(self) -> int:
        """First axis of the timesteps."""
        return len(self.timesteps)

    @property
    def parts(self) -> int:
        """Second axis of the timesteps."""
        return self.timesteps.shape[1]

    @property
    def query_draws(self) -> int:
        """Noises at every timestep of a bin."""
        return self.parts * self.group

    def sample_draws(self, samples: np.ndarray, which: int) -> int:
        """As many of each."""
        return len(samples) * self.query_draws

    @property
    def settings(self) -> list[int]:
        """Bins, parts, timesteps of a part, noises at each."""
        return [*self.timesteps.shape, self.noises]

    @property
    def group(self) -> int:
        """All draws of an image in a part."""
        return self.timesteps.shape[2] * self.noises

    @property
    def query_group(self) -> int:
        """The same."""
        return self.group

    def sample_rows(self, samples: np.ndarray, which: int, most: int) -> Iterator[Rows]:
        """Draws of some samples in one bin."""
        size = max(1, most // (self.group * self.parts))
        for start in range(0, len(samples), size):
            some = samples[start : start + size]
            queries = training_samples(self.run, "", some)
            yield self._rows(queries, which, b"sample", start)

    def query_rows(self, queries: Queries, which: int, most: int) -> Iterator[Rows]:
        """Draws of queries in one bin."""
        size = max(1, most // (self.group * self.parts))
        for start in range(0, len(queries), size):
            some = queries.take(range(start, min(start + size, len(queries))))
            yield self._rows(some, which, b"query", start)

    def _rows(self, images: Queries, which: int, side: bytes, first: int) -> Rows:
        """Image by image, part by part, timestep by timestep."""
        steps = self.timesteps[which].flatten()
        asked = images.asked(self.run, Plan(steps, self.noises, self.seed))
        count, shape = asked.size, asked.seen.clean.shape[1:]
        noise = torch.stack([self._noise(image, which, side, shape) for image in asked.pixels])
        seen = asked.at(slice(None), len(steps)).repeated(self.noises)
        moments = steps.repeat(count).repeat_interleave(self.noises)
        image = torch.arange(first, first + count).repeat_interleave(self.query_draws)
        part = torch.arange(self.parts).repeat_interleave(self.group).repeat(count)
        return Rows(Shown(seen, moments, noise.flatten(0, 2)), image, part)

    def _noise(self, pixels: Tensor, which: int, side: bytes, shape: Sequence[int]) -> Tensor:
        """`[G · t, m, …]`: they follow from the image and from which side it is on, so that a query
        never has the noises of an equal sample."""
        image = hashlib.sha256(side + pixels.numpy().astype("<f4").tobytes()).digest()
        entropy = [self.seed, self.epoch, which, int.from_bytes(image[:16], "little")]
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        size = (self.timesteps[which].numel(), self.noises // 2, *shape)
        half = torch.from_numpy(stream.standard_normal(size, dtype=np.float32))
        return torch.stack((half, -half), 2).flatten(1, 2)


@dataclass(frozen=True, eq=False)
class Visits:
    """The events of some epochs, by bin of their timesteps; queries at a grid in each bin.

    Attributes:
        run: whose events they are.
        epochs: V of them, counted from 0.
        timesteps: int64 `[V, N]`, of every sample's event.
        queries: the grid, which has as many bins.
    """

    run: Run
    epochs: tuple[int, ...]
    timesteps: np.ndarray
    queries: Grid

    @staticmethod
    def of(run: Run, epochs: Sequence[int], queries: Grid) -> "Visits":
        """Look up where all samples were in some epochs."""
        every = np.arange(run.size)
        steps = [run.event_timesteps(epoch, every) for epoch in epochs]
        return Visits(run, tuple(epochs), np.stack(steps), queries)

    @property
    def bins(self) -> int:
        """Equal parts of [0, T)."""
        return self.queries.bins

    @property
    def parts(self) -> int:
        """Of queries' draws; events are dealt out to them in turn."""
        return self.queries.parts

    @property
    def query_draws(self) -> int:
        """As the grid has them."""
        return self.queries.query_draws

    def sample_draws(self, samples: np.ndarray, which: int) -> int:
        """The events that fall into the bin."""
        return int(self._inside(samples, which).sum())

    @property
    def settings(self) -> list[int]:
        """Those of the grid; which events there are is the run's."""
        return self.queries.settings

    @property
    def group(self) -> int:
        """Events come one by one."""
        return 1

    @property
    def query_group(self) -> int:
        """All draws of a query in a part."""
        return self.queries.group

    def query_rows(self, queries: Queries, which: int, most: int) -> Iterator[Rows]:
        """Draws of queries in one bin."""
        return self.queries.query_rows(queries, which, most)

    def sample_rows(self, samples: np.ndarray, which: int, most: int) -> Iterator[Rows]:
        """The events of some samples in one bin."""
        inside = self._inside(samples, which)
        part = np.where(inside, (np.cumsum(inside, 0) - 1) % self.parts, 0)
        waiting: list[tuple[Shown, np.ndarray, np.ndarray]] = []
        for place, epoch in enumerate(self.epochs):
            chosen = np.flatnonzero(inside[place])
            for some in np.array_split(chosen, max(1, -(-len(chosen) // most))):
                if len(some) == 0:
                    continue
                if waiting and sum(len(rows) for _, rows, _ in waiting) + len(some) > most:
                    yield _joined(waiting)
                    waiting = []
                waiting.append((self.run.shown(epoch, samples[some]), some, part[place, some]))
        if waiting:
            yield _joined(waiting)

    def _inside(self, samples: np.ndarray, which: int) -> np.ndarray:
        return self.timesteps[:, samples] * self.bins // self.run.timesteps == which


def _joined(parts: Sequence[tuple[Shown, np.ndarray, np.ndarray]]) -> Rows:
    batches, images, groups = zip(*parts, strict=True)
    return Rows(
        together(batches),
        torch.from_numpy(np.concatenate(images)),
        torch.from_numpy(np.concatenate(groups)),
    )


def _between(number: int) -> float:
    """The number's digits in base 2, mirrored at the point, in (0, 1); 0 gives the middle."""
    place, digit, number = 0.0, 0.5, number + 1
    while number:
        place, digit, number = place + digit * (number % 2), digit / 2, number // 2
    return place
