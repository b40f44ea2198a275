"""The loss of a sample, against the formulas written out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.loss import Objective
from retrac.diffusion.model import build_unet
from retrac.diffusion.shown import Seen, Shown
from tiny import TINY

PREDICTIONS, LOSSES = ("epsilon", "v", "x0"), ("l1", "mse")
SCHEDULES = ("linear", "cosine", "clipped-cosine")
TIMESTEPS = torch.tensor([0, 7, 19])


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(3, 1, 8, 8) * 2 - 1, torch.randn(3, 1, 8, 8)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_the_formula(prediction: str, loss: str, schedule: str) -> None:
    config = ObjectiveConfig(20, schedule, prediction, loss)  # type: ignore[arg-type]
    images, noise = batch()
    seen = []

    def network(noisy: Tensor, timesteps: Tensor) -> SimpleNamespace:
        seen.append(noisy)
        return SimpleNamespace(sample=0.3 * noisy + timesteps.view(-1, 1, 1, 1) / 20)

    losses = Objective.of(config).losses(network, Seen(images), TIMESTEPS, noise)
    for row, t in enumerate(TIMESTEPS.tolist()):
        alpha_bar = alpha_bar_by_hand(schedule, 20, t)
        a, s = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        x, e = images[row].double(), noise[row].double()
        noisy = a * x + s * e
        target = {"epsilon": e, "v": a * e - s * x, "x0": x}[prediction]
        error = 0.3 * noisy + t / 20 - target
        expected = (error.abs() if loss == "l1" else error**2).mean()
        assert torch.allclose(seen[0][row].double(), noisy, atol=1e-5)
        assert losses[row].item() == pytest.approx(expected.item(), rel=1e-4)


def alpha_bar_by_hand(schedule: str, steps: int, last: int) -> float:
    def f(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    product = 1.0
    for t in range(last + 1):
        if schedule == "linear":
            beta = 1e-4 + (0.02 - 1e-4) * t / (steps - 1)
        else:
            least, most = (0, 0.999) if schedule == "cosine" else (1e-4, 0.02)
            beta = min(max(1 - f((t + 1) / steps) / f(t / steps), least), most)
        product *= 1 - beta
    return product


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_has_no_loss(prediction: str) -> None:
    images, noise = batch()
    objective = Objective.of(ObjectiveConfig(20, prediction=prediction))  # type: ignore[arg-type]
    a = objective.process.signal[TIMESTEPS].view(-1, 1, 1, 1)
    s = objective.process.spread[TIMESTEPS].view(-1, 1, 1, 1)
    right = {"epsilon": noise, "v": a * noise - s * images, "x0": images}[prediction]
    losses = objective.losses(
        lambda x, t: SimpleNamespace(sample=right), Seen(images), TIMESTEPS, noise
    )
    assert losses.max() < 1e-12


def test_a_sample_s_loss_does_not_depend_on_the_others_or_on_the_memory_format() -> None:
    model = build_unet(TINY.model, (1, 8, 8), seed=0)
    objective, (images, noise) = Objective.of(TINY.objective), batch()
    together = objective.losses(
        model, *Shown(Seen(images), TIMESTEPS, noise).on(torch.device("cpu"))
    )
    for row in range(3):
        one = slice(row, row + 1)
        alone = objective.losses(model, Seen(images[one]), TIMESTEPS[one], noise[one])
        assert torch.allclose(alone, together[one], rtol=1e-4)


def test_a_prediction_in_half_precision_gives_a_loss_in_single() -> None:
    images, noise = batch()
    half = SimpleNamespace(sample=noise.bfloat16())
    losses = Objective.of(TINY.objective).losses(lambda x, t: half, Seen(images), TIMESTEPS, noise)
    assert losses.dtype == torch.float32
