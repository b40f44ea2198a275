"""Forward processes are those of diffusers, from noise to target to weight."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.training_utils import compute_loss_weighting_for_sd3, compute_snr
from torch import Tensor

from retrac.diffusion.process import Process, cosine_map, inverse_square, min_snr
from retrac.diffusion.schedule import process_of
from retrac.errors import RetracError

MOMENTS = torch.tensor([0, 7, 19])


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_diffusion_is_its_scheduler_s(kind: type, prediction: str) -> None:
    scheduler = kind(20, beta_schedule="scaled_linear", prediction_type=prediction)
    process, (clean, noise) = process_of(scheduler), batch()
    noised = scheduler.add_noise(clean, noise, MOMENTS)
    torch.testing.assert_close(process.noised(clean, noise, MOMENTS), noised)
    target = {
        "epsilon": noise,
        "v_prediction": scheduler.get_velocity(clean, noise, MOMENTS),
        "sample": clean,
    }[prediction]
    torch.testing.assert_close(process.target(clean, noise, MOMENTS), target)
    assert process.told[MOMENTS].tolist() == MOMENTS.tolist() and process.timesteps == 20


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_is_its_scheduler_s(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(20, shift=shift)
    process, (clean, noise) = process_of(scheduler), batch()
    told = process.told[MOMENTS]
    noised = scheduler.scale_noise(clean, told, noise)
    torch.testing.assert_close(process.noised(clean, noise, MOMENTS), noised)
    torch.testing.assert_close(process.target(clean, noise, MOMENTS), noise - clean)
    assert (process.spread.diff() > 0).all() and process.spread[-1] == 1


def test_a_flow_whose_shift_follows_the_resolution_is_not_shifted_in_training() -> None:
    process = process_of(FlowMatchEulerDiscreteScheduler(20, shift=3, use_dynamic_shifting=True))
    torch.testing.assert_close(process.spread, torch.arange(1, 21) / 20)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_min_snr_is_that_of_a_loss_on_the_sample(prediction: str) -> None:
    """Weights differ by prediction so that the weighted losses do not."""
    scheduler = DDPMScheduler(20)
    process = Process.diffusion(scheduler.alphas_cumprod, prediction)
    ratio = compute_snr(scheduler, torch.arange(20))
    torch.testing.assert_close(process.ratio, ratio)
    weights = min_snr(process, 5.0)
    (clean, noise), guess = batch(), torch.randn(3, 4, 2, 2)  # of the sample
    signal, spread = (
        table[MOMENTS].view(-1, 1, 1, 1) for table in (process.signal, process.spread)
    )
    guessed_noise = (process.noised(clean, noise, MOMENTS) - signal * guess) / spread
    predicted = {
        "epsilon": guessed_noise,
        "v": signal * guessed_noise - spread * guess,
        "x0": guess,
    }[prediction]
    error = (predicted - process.target(clean, noise, MOMENTS)).square().flatten(1).mean(1)
    on_sample = (guess - clean).square().flatten(1).mean(1) * ratio[MOMENTS].clamp(max=5)
    torch.testing.assert_close(weights[MOMENTS] * error, on_sample, rtol=1e-3, atol=0)


def test_weights_of_flows_are_diffusers() -> None:
    process = process_of(FlowMatchEulerDiscreteScheduler(20))
    for ours, theirs in ((inverse_square, "sigma_sqrt"), (cosine_map, "cosmap")):
        expected = compute_loss_weighting_for_sd3(theirs, process.spread)
        torch.testing.assert_close(ours(process), expected)
        assert torch.equal(process.weighted(expected).weight, expected)


def test_another_scheduler_is_refused_by_name() -> None:
    with pytest.raises(RetracError, match="EDMEulerScheduler"):
        process_of(EDMEulerScheduler())


def test_min_snr_counts_a_timestep_without_signal() -> None:
    """Its limit: of an ε-prediction all weights are 1 where the ratio is low."""
    process = Process.diffusion(torch.tensor([0.99, 0.5, 0.0]), "epsilon")
    torch.testing.assert_close(min_snr(process), torch.tensor([5 / 99, 1.0, 1.0]))
