"""Gradients compared in units of how large samples' gradients are, number by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrac import Draws, Method

if TYPE_CHECKING:  # torch takes seconds to start
    from torch import Tensor


@dataclass(frozen=True)
class Diagonal:
    damping: float = 0.1
    separable = False  # the score is no mean over layers

    def fit(self, samples: Tensor, layers: Sequence[slice]) -> Callable[[Tensor], Tensor]:
        squares = samples.square().mean(0)
        return lambda queries: queries / (squares + self.damping * squares.mean() + 1e-30)


diagonal = Method(
    name="diagonal",
    title="Diagonal curvature",
    about="Gradients of the loss, each number divided by the mean square that samples have there.",
    estimand="The expected effect of the sample, if curvature were diagonal.",
    source="ours",
    draws=Draws.TIMESTEPS,
    metric=Diagonal(),
)
