"""Plans to choose from, and the scores that each gives, put together from a table."""

from dataclasses import dataclass

import numpy as np

from benchmarks.plans.tables import PARTNERS, REFERENCE, SHARED, TEST, TIMESTEPS, Table
from retrac.attribution.methods import by_events

METHODS = tuple(method.name for method in by_events())


@dataclass(frozen=True)
class Candidate:
    """A kind of plan.

    Attributes:
        timesteps: T', all of the 100 or fewer.
        noises: m at each of them.
        spacing: "ends", evenly from the first timestep to the last; "middles" of T' equal parts;
            "random", one in each of T' equal parts; "low" and "high", middles of parts that grow
            towards the noisy or towards the clean end, each counted by its width.
        noise: "independent", "pairs" of opposite sign, or "shared" by all timesteps.
    """

    timesteps: int
    noises: int
    spacing: str = "ends"
    noise: str = "independent"

    def __str__(self) -> str:
        return f"{self.timesteps} x {self.noises} {self.spacing}, {self.noise}"

    @property
    def draws(self) -> int:
        """What it costs."""
        return self.timesteps * self.noises


@dataclass(frozen=True, eq=False)
class Choice:
    """Draws of a table: `timesteps [T']` with their `weights [T']`, and `draws [T', m]` at each."""

    timesteps: np.ndarray
    weights: np.ndarray
    draws: np.ndarray


PUBLISHED = Choice(
    np.arange(TIMESTEPS),
    np.full(TIMESTEPS, 1 / TIMESTEPS),
    np.tile(np.array(REFERENCE), (TIMESTEPS, 1)),
)


def choose(candidate: Candidate, random: np.random.Generator) -> Choice:
    """Pick a candidate's draws from those that the published plan does not use."""
    timesteps, weights = _spread(candidate, random)
    return Choice(timesteps, weights, _draws(candidate, random))


def scores(table: Table, choice: Choice) -> np.ndarray:
    """Contributions `[M, S]` of the table's checkpoint."""
    at, draws = choice.timesteps[:, None], choice.draws
    dots = table.dots[at, draws].mean(1)
    squared = table.gram[at[..., None], draws[:, :, None], draws[:, None, :]].mean((1, 2))
    tracin = choice.weights @ dots
    retrac = (choice.weights / np.sqrt(squared)) @ dots
    return np.stack((tracin * table.weights, retrac * table.weights / table.norms))


def _spread(candidate: Candidate, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    count = candidate.timesteps
    if candidate.spacing == "ends":
        return np.linspace(0, TIMESTEPS - 1, count).round().astype(int), np.full(count, 1 / count)
    offset = random.random(count) if candidate.spacing == "random" else 0.5
    middles, edges = (
        _warped(at / count, candidate.spacing)
        for at in (np.arange(count) + offset, np.arange(count + 1))
    )
    return (middles * TIMESTEPS).astype(int), np.diff(edges)


def _warped(at: np.ndarray, spacing: str) -> np.ndarray:
    """[0, 1] onto itself."""
    if spacing == "low":
        return np.square(at)
    return 1 - np.square(1 - at) if spacing == "high" else at


def _draws(candidate: Candidate, random: np.random.Generator) -> np.ndarray:
    count, noises = candidate.timesteps, candidate.noises
    if candidate.noise == "shared":
        return np.tile(random.permutation(SHARED)[:noises], (count, 1))
    if candidate.noise == "pairs":
        pairs = random.permuted(np.tile(np.arange(len(PARTNERS)), (count, 1)), axis=1)
        pairs = pairs[:, : noises // 2]
        return np.concatenate((TEST.start + pairs, PARTNERS.start + pairs), 1)
    return random.permuted(np.tile(np.array(TEST), (count, 1)), axis=1)[:, :noises]
