"""How evaluations are made. Light to import: these fields are the command line and its help."""

from dataclasses import dataclass

from retrac.errors import RetracError


@dataclass(frozen=True)
class RetrainingConfig:
    """Which models are trained again, and how closely they are looked at."""

    subsets: int = 64
    """Random parts of the training set."""
    seeds: int = 2
    """Models trained on each of them, from different first weights and events."""
    fraction: float = 0.5
    """Of the training set in each part."""
    subset_seed: int = 0
    """Seed of the parts."""
    loss_timesteps: int = 64
    """Timesteps at which a query's loss is measured, evenly spaced."""
    loss_noises: int = 8
    """Noises at each of them, in pairs of opposite sign."""

    def __post_init__(self) -> None:
        for name in ("subsets", "seeds", "loss_timesteps", "loss_noises"):
            if getattr(self, name) < 1:
                told = name.replace("_", "-")
                raise RetracError(f"--{told} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.fraction < 1:
            raise RetracError(f"--fraction must be between 0 and 1, not {self.fraction}")
        if self.subset_seed < 0:
            raise RetracError(f"--subset-seed must be at least 0, not {self.subset_seed}")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is asked of scores."""

    k: int = 10
    """Length of a list."""
    moved: int = 64
    """Samples that are moved to the timestep with the largest gradient norms; 0 for none."""
    moved_queries: int = 8
    """Queries for which these are scored again."""

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("moved", 0), ("moved_queries", 1)):
            if getattr(self, name) < least:
                told = name.replace("_", "-")
                raise RetracError(f"--{told} must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True)
class RemovalConfig:
    """What is removed, and how closely the retrained models are looked at."""

    k: int = 50
    """Samples that are removed."""
    queries_used: int = 4
    """Queries, evenly spread over those of the attribution; each takes a training for every
    method, and one for pixel similarity. (One for the training loss serves all.)"""
    random_draws: int = 4
    """Models trained without samples chosen at random, which serve all queries."""
    removal_seed: int = 0
    """Seed of the choice at random."""
    loss_timesteps: int = 64
    """Timesteps at which a query's loss is measured, evenly spaced."""
    loss_noises: int = 8
    """Noises at each of them, in pairs of opposite sign."""

    def __post_init__(self) -> None:
        for name in ("k", "queries_used", "random_draws", "loss_timesteps", "loss_noises"):
            if getattr(self, name) < 1:
                told = name.replace("_", "-")
                raise RetracError(f"--{told} must be at least 1, not {getattr(self, name)}")
        if self.removal_seed < 0:
            raise RetracError(f"--removal-seed must be at least 0, not {self.removal_seed}")
