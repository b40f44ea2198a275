"""What every test here says: the fast way agrees with the oracle, or refuses by name."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from retrac.gradients import (
    CoverageError,
    dots_and_norms,
    grouped_gradients,
    oracle,
    squared_norms,
)

random_layers = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""How a property is tried out."""

seeds = st.integers(0, 9999)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def directions_for(model: nn.Module, count: int = 3) -> dict[str, Tensor]:
    return {
        name: torch.randn(count, *parameter.shape, dtype=parameter.dtype)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def random_losses(model: nn.Module, *inputs: Tensor, **named: Tensor) -> Callable[[], Tensor]:
    """Losses that weigh every number of a model's output differently, and curve."""
    weights: list[Tensor] = []

    def losses() -> Tensor:
        output = model(*inputs, **named).flatten(1)
        if not weights:
            weights.append(torch.randn_like(output))
        return ((output + 0.1 * output.square()) * weights[0]).sum(1)

    return losses


def assert_agrees(
    model: nn.Module, losses: Callable[[], Tensor], groups: tuple[int, ...] = (1,)
) -> None:
    """Dots and norms, and the gradients themselves in groups of each size, are the oracle's."""
    dtype = next(parameter.dtype for parameter in model.parameters())
    tolerance = TOLERANCE[dtype]
    directions = directions_for(model)
    expected_dots, expected_norms = oracle.dots_and_norms(model, losses, directions)
    scale = expected_norms.max().sqrt()
    lengths = sum(
        rows.square().reshape(len(rows), -1).sum(1) for rows in directions.values()
    ).sqrt()

    dots, squared = dots_and_norms(model, losses, directions)

    torch.testing.assert_close(
        squared_norms(model, losses), squared, rtol=tolerance, atol=float(tolerance * scale**2)
    )
    assert dots.shape == expected_dots.shape and squared.shape == expected_norms.shape
    norms = expected_norms.sqrt()
    assert ((squared.sqrt() - norms).abs() <= tolerance * norms + 1e-3 * tolerance * scale).all()
    allowed = tolerance * norms[:, None] * lengths + 1e-3 * tolerance * scale * lengths
    assert ((dots - expected_dots).abs() <= allowed).all()

    expected = oracle.per_sample_gradients(model, losses)
    for size in groups:
        gradients, squared = grouped_gradients(model, losses, size)
        assert gradients.keys() == expected.keys()
        total = torch.zeros_like(squared)
        for name, (layout, rows) in gradients.items():
            sums = expected[name].unflatten(0, (-1, size)).sum(1)
            torch.testing.assert_close(
                layout.unpack(rows), sums, rtol=0, atol=float(tolerance * scale * size + 1e-30)
            )
            total += sums.square().reshape(len(sums), -1).sum(1)
        torch.testing.assert_close(
            squared, total, rtol=10 * tolerance, atol=float(tolerance * (scale * size).square())
        )


def assert_untouched(model: nn.Module, trainable: set[str]) -> None:
    """No hook, no gradient and no frozen parameter is left behind."""
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trainable
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    for parameter in model.parameters():
        assert parameter.grad is None and not parameter._backward_hooks


def assert_refused(model: nn.Module, losses: Callable[[], Tensor], *words: str) -> None:
    """The pass is refused in words that name what is wrong, and leaves the model as it was."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with pytest.raises(CoverageError) as caught:
        dots_and_norms(model, losses, directions_for(model))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trainable
