"""Weights in half precision: gradients are near those of float64, and are added up in float32."""

import pytest
import torch

from families import EVERY, family
from retrac.diffusion.loss import DISTANCES, Objective
from retrac.diffusion.process import Process
from retrac.diffusion.shown import Seen
from retrac.gradients import dots_and_norms, grouped_gradients

MOMENTS = torch.tensor([3, 20, 49])
PROCESS = Process.diffusion(torch.linspace(0.99, 0.01, 50), "v")


def scores(name: str, precision: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    network, seen = family(name)
    network = network.to(precision)
    torch.manual_seed(1)
    wide = torch.promote_types(precision, torch.float32)
    directions = {
        name: torch.randn(2, *parameter.shape).to(wide)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    loss = Objective(PROCESS, DISTANCES["mse"], family(name).call)
    noise = torch.randn_like(seen.clean)

    def losses() -> torch.Tensor:
        return loss.losses(network, Seen(seen.clean, seen.conditions), MOMENTS, noise)

    dots, squared = dots_and_norms(network, losses, directions)
    assert dots.dtype == squared.dtype == wide
    groups, _ = grouped_gradients(network, losses)
    assert {values.dtype for _, values in groups.values()} == {wide}
    return dots.double(), squared.double()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)],
    ids=["float32", "bfloat16", "float16"],
)
def test_gradients_are_near_those_of_float64(
    name: str, precision: torch.dtype, tolerance: float
) -> None:
    dots, squared = scores(name, precision)
    exact, norms = scores(name, torch.float64)
    size = norms.sqrt()
    torch.testing.assert_close(squared.sqrt(), size, rtol=tolerance, atol=0)
    assert ((dots - exact).abs() <= 4 * tolerance * size[:, None]).all()


def test_small_gradients_are_not_lost_in_float16() -> None:
    """Below 6e-8, float16 has nothing but 0; losses are multiplied ahead of the backward pass."""
    layer = torch.nn.Linear(2, 1, bias=False).half()
    inputs = torch.full((1, 2), 1e-3, dtype=torch.float16)

    def losses() -> torch.Tensor:
        return layer(inputs).float().flatten() * 1e-7

    directions = {"weight": torch.ones(1, 1, 2, dtype=torch.float32)}
    dots, _ = dots_and_norms(layer, losses, directions)
    torch.testing.assert_close(
        dots, torch.tensor([[2e-10]], dtype=torch.float32), rtol=0.02, atol=0
    )
