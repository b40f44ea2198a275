"""What one step of training does with a gradient, as differentiable functions of vectors.

They are what torch's optimisers, `clip_grad_norm_` and diffusers' `EMAModel` compute; tests hold
them against these. Their derivatives come from autograd, so each formula stands here once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from retrac.training.config import OptimizerConfig
from retrac.unrolled.state import State

BETAS = (0.9, 0.999)
"""Of Adam, by which torch's optimisers average gradients and their squares."""
EPSILON = 1e-8
"""Likewise, beside the root of the latter."""
LEAST = 1e-6
"""Beside the norm in `clip_grad_norm_`."""


@dataclass(frozen=True)
class Update:
    """A step: a state, the gradient of its batch and a learning rate give the next state.

    Attributes:
        config: the optimiser.
        decay: of the moving average, by how many steps it has taken; None where none is kept.
    """

    config: OptimizerConfig
    decay: Callable[[int], float] | None = None

    @property
    def moments(self) -> int:
        """M: vectors that the optimiser remembers."""
        if self.config.optimizer == "sgd":
            return int(self.config.momentum > 0)
        return 2

    def __call__(self, state: State, gradient: Tensor, rate: float) -> State:
        """Take a step.

        Args:
            state: before it.
            gradient: `[P]`, of the batch's loss, before clipping.
            rate: the learning rate; 0 where the scaler of fp16 skipped the step, which leaves the
                optimiser as it was.
        """
        weights, moments, updates = state.weights, state.moments, state.updates
        if rate:
            updates += 1
            clipped = clip(gradient, self.config.max_grad_norm)
            rule = sgd if self.config.optimizer == "sgd" else adam
            weights, moments = rule(self.config, weights, moments, clipped, rate, updates)
        if self.decay is None:
            return State(weights, moments, state.average, updates, 0)
        averaged = state.averaged + 1
        share = 1 - self.decay(averaged)
        average = state.average - share * (state.average - weights)
        return State(weights, moments, average, updates, averaged)


def clip(gradient: Tensor, most: float | None) -> Tensor:
    """A gradient scaled down to a norm, as `torch.nn.utils.clip_grad_norm_` does."""
    if most is None:
        return gradient
    return gradient * (most / (gradient.norm() + LEAST)).clamp(max=1.0)


def sgd(
    config: OptimizerConfig,
    weights: Tensor,
    moments: Tensor,
    gradient: Tensor,
    rate: float,
    updates: int,
) -> tuple[Tensor, Tensor]:
    """Weights and buffer after a step of `torch.optim.SGD`."""
    if config.weight_decay:
        gradient = gradient + config.weight_decay * weights
    if not config.momentum:
        return weights - rate * gradient, moments
    buffer = config.momentum * moments[0] + gradient
    return weights - rate * buffer, buffer[None]


def adam(
    config: OptimizerConfig,
    weights: Tensor,
    moments: Tensor,
    gradient: Tensor,
    rate: float,
    updates: int,
) -> tuple[Tensor, Tensor]:
    """Weights and both moments after a step of `torch.optim.Adam` or `AdamW`.

    A weight that never had a gradient has a second moment of 0, where the step m / (√v + ε) is 0,
    too, but rises by 1/ε: it would tell what a gradient of less than ε = 1e-8 does. Its derivative
    is taken as 0 there: such a weight rests as long as none of its samples gives it a gradient.
    """
    if config.weight_decay:
        if config.optimizer == "adamw":
            weights = weights * (1 - rate * config.weight_decay)
        else:
            gradient = gradient + config.weight_decay * weights
    first = BETAS[0] * moments[0] + (1 - BETAS[0]) * gradient
    second = BETAS[1] * moments[1] + (1 - BETAS[1]) * gradient.square()
    moved = second > 0
    root = torch.where(moved, second, 1).sqrt() / (1 - BETAS[1] ** updates) ** 0.5
    step = torch.where(moved, first / (root + EPSILON), 0)
    weights = weights - rate / (1 - BETAS[0] ** updates) * step
    return weights, torch.stack((first, second))
