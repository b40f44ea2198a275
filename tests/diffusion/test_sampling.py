"""Generation: an image depends on the seed and on its index alone."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.model import build_unet
from retrac.diffusion.samplers import Diffusing
from retrac.diffusion.sampling import BATCH, Making, sample
from retrac.diffusion.schedule import make_scheduler
from tiny import TINY

SHAPE = (1, 8, 8)
MODEL = build_unet(TINY.model, SHAPE, seed=0).eval()


def made(indices: Any, prediction: str = "epsilon", **options: Any) -> np.ndarray:
    scheduler = make_scheduler(ObjectiveConfig(50, prediction=prediction))  # type: ignore[arg-type]
    options = {"seed": 5, "steps": 3, "shown": False, **options}
    return sample(MODEL, Making(scheduler, SHAPE), indices, **options).images


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_an_image_does_not_depend_on_count_or_place(prediction: str, eta: float) -> None:
    many = made(range(BATCH + 3), prediction, eta=eta)
    assert many.dtype == np.uint8 and many.shape == (BATCH + 3, *SHAPE)
    assert len(np.unique(many, axis=0)) == BATCH + 3
    for index in (0, BATCH - 1, BATCH + 2):
        assert np.array_equal(made([index], prediction, eta=eta)[0], many[index])
    shuffled = [7, 2, 18, 2]
    assert np.array_equal(made(shuffled, prediction, eta=eta), many[shuffled])


def test_seed_eta_and_steps_change_the_images() -> None:
    variants = [made([0]), made([0], seed=6), made([0], eta=1.0), made([0], steps=4)]
    assert len(np.unique(np.concatenate(variants), axis=0)) == 4


def test_it_is_ddim_as_diffusers_has_it() -> None:
    """Noise of image 2 from its own stream, then diffusers' sampler, step by step."""
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([5, 2])))
    image = torch.from_numpy(stream.standard_normal((1, *SHAPE), dtype=np.float32))
    sampler = DDIMScheduler(
        num_train_timesteps=50,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    sampler.set_timesteps(3)
    with torch.no_grad():
        for timestep in sampler.timesteps:
            image = sampler.step(MODEL(image, timestep).sample, timestep, image).prev_sample
    expected = ((image + 1) * 127.5).clamp(0, 255).numpy()
    assert abs(made([2], "v")[0].astype(float) - expected[0]).max() <= 0.51


@pytest.mark.parametrize("schedule", ["sigmoid", "laplace", "scaled_linear"])
def test_schedules_that_ddim_does_not_know_are_sampled_too(schedule: str) -> None:
    scheduler = DDPMScheduler(50, beta_schedule=schedule)
    sampler = Diffusing(scheduler, 5, 0.0, torch.device("cpu"))
    clean, noise = torch.rand(1, 3, 8, 8) * 2 - 1, torch.randn(1, 3, 8, 8)
    place = int(sampler.timesteps[0])
    noisy = scheduler.add_noise(clean, noise, torch.tensor([place]))
    torch.testing.assert_close(sampler.step(noise, 0, noisy, None).clean, clean, atol=1e-3, rtol=0)


def test_no_images_and_as_many_steps_as_timesteps() -> None:
    assert made([]).shape == (0, *SHAPE)
    assert made([0], steps=50).shape == (1, *SHAPE)
