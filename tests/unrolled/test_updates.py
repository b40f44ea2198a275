"""Steps as functions of vectors: those of torch's optimisers, clipping and moving average."""

from dataclasses import replace

import pytest
import torch
from diffusers.training_utils import EMAModel
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from retrac.training.config import OptimizerConfig
from retrac.unrolled import State, Update, clip

OPTIMISERS = [
    OptimizerConfig("sgd"),
    OptimizerConfig("sgd", weight_decay=0.1),
    OptimizerConfig("sgd", momentum=0.9),
    OptimizerConfig("sgd", momentum=0.9, weight_decay=0.1),
    OptimizerConfig("adam"),
    OptimizerConfig("adam", weight_decay=0.1),
    OptimizerConfig("adamw"),
    OptimizerConfig("adamw", weight_decay=0.1),
]
SIZE = 6


def torchs(config: OptimizerConfig, weights: nn.Parameter) -> Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return SGD([weights], lr=rate, weight_decay=decay, momentum=config.momentum)
    return {"adam": Adam, "adamw": AdamW}[config.optimizer]([weights], lr=rate, weight_decay=decay)


def fresh(update: Update, weights: Tensor) -> State:
    moments = weights.new_zeros(update.moments, SIZE)
    return State(weights, moments, weights.new_zeros(0), 0, 0)


@pytest.mark.parametrize("clipped", [None, 0.5])
@pytest.mark.parametrize("config", OPTIMISERS, ids=str)
def test_steps_are_torchs(config: OptimizerConfig, clipped: float | None) -> None:
    config = replace(config, max_grad_norm=clipped)
    weights = nn.Parameter(torch.randn(SIZE, dtype=torch.float64))
    optimizer, update = torchs(config, weights), Update(config)
    state = fresh(update, weights.detach().clone())
    for step in range(5):
        weights.grad = torch.randn_like(weights)
        rate = 0.01 * (step + 1)
        optimizer.param_groups[0]["lr"] = rate
        state = update(state, weights.grad.clone(), rate)
        if clipped is not None:
            nn.utils.clip_grad_norm_([weights], clipped)
        optimizer.step()
        assert torch.allclose(state.weights, weights.detach(), rtol=1e-12, atol=1e-14)
    assert state.updates == 5


def test_the_average_is_that_of_diffusers() -> None:
    weights = nn.Parameter(torch.randn(SIZE, dtype=torch.float64))
    ema = EMAModel([weights], decay=0.9)
    update = Update(OptimizerConfig("sgd"), ema.get_decay)
    state = fresh(update, weights.detach().clone())._replace(average=weights.detach().clone())
    for _ in range(20):  # past its own warm-up
        gradient = torch.randn_like(weights)
        state = update(state, gradient, 0.1)
        with torch.no_grad():
            weights.sub_(0.1 * gradient)
        ema.step([weights])
    assert torch.allclose(state.average, ema.shadow_params[0], rtol=1e-12)
    assert state.averaged == 20


@pytest.mark.parametrize("config", OPTIMISERS, ids=str)
def test_a_step_that_was_skipped_changes_nothing_but_the_average(config: OptimizerConfig) -> None:
    update = Update(config, lambda step: 0.5)
    before = fresh(update, torch.ones(SIZE))._replace(average=torch.zeros(SIZE))
    after = update(before, torch.randn(SIZE), 0.0)
    assert torch.equal(after.weights, before.weights) and torch.equal(after.moments, before.moments)
    assert after.updates == 0
    assert torch.equal(after.average, torch.full((SIZE,), 0.5))


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_clipping_is_torchs(size: float, most: float) -> None:
    parameter = nn.Parameter(torch.zeros(SIZE))
    parameter.grad = size * torch.linspace(-1, 1, SIZE)
    clipped = clip(parameter.grad.clone(), most)
    nn.utils.clip_grad_norm_([parameter], most)
    assert torch.allclose(clipped, parameter.grad)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_weight_that_never_had_a_gradient_rests_and_passes_nothing_on(name: str) -> None:
    """Where the root of the second moment is 0, the derivative of Adam's step is taken as 0."""
    update = Update(OptimizerConfig(name))
    state = fresh(update, torch.ones(SIZE))
    gradient = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], requires_grad=True)
    moments = state.moments.clone().requires_grad_()
    after = update(state._replace(moments=moments), gradient, 0.1)
    assert torch.equal(after.weights[:3], torch.ones(3))
    upon = torch.autograd.grad(after.weights.sum(), [gradient, moments])
    assert all(torch.isfinite(each).all() for each in upon)
    assert not upon[0][:3].any() and not upon[1][:, :3].any()
    assert upon[1][:, 3:].all()
