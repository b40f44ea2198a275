"""Noise schedules."""

import numpy as np
import pytest

from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.schedule import clipped_cosine_betas, make_scheduler


def alphas_bar(schedule: str, steps: int = 1000) -> np.ndarray:
    return make_scheduler(ObjectiveConfig(steps, schedule)).alphas_cumprod.numpy()  # type: ignore[arg-type]


def test_the_published_clipped_cosine_does_not_end_in_pure_noise() -> None:
    """Its betas are clipped at 0.0001 and 0.02, not at 0 and 0.999: ᾱ ends near 0.0032."""
    betas = clipped_cosine_betas(1000)
    assert betas.max() == np.float32(0.02) and (betas[:13] == np.float32(0.0001)).all()
    assert alphas_bar("clipped-cosine")[-1] == pytest.approx(0.0032, abs=5e-5)
    assert alphas_bar("cosine")[-1] < 1e-6


def test_linear_and_cosine_are_the_usual_ones() -> None:
    assert alphas_bar("linear")[[0, -1]] == pytest.approx([0.9999, 4.04e-5], rel=1e-2)
    assert alphas_bar("cosine")[[0, 499]] == pytest.approx([0.99996, 0.4938], rel=1e-3)
    clipped, free = alphas_bar("clipped-cosine"), alphas_bar("cosine")
    assert clipped[:800] == pytest.approx(free[:800], rel=4e-4)
    assert 1 - clipped[0] == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "clipped-cosine"])
@pytest.mark.parametrize("steps", [1, 2, 50, 1000])
def test_noise_only_grows(schedule: str, steps: int) -> None:
    along = alphas_bar(schedule, steps)
    assert len(along) == steps and along[-1] > 0 and along[0] < 1
    assert (np.diff(along) < 0).all()


@pytest.mark.parametrize(
    ("prediction", "theirs"), [("epsilon", "epsilon"), ("v", "v_prediction"), ("x0", "sample")]
)
def test_diffusers_is_told_what_the_network_predicts(prediction: str, theirs: str) -> None:
    scheduler = make_scheduler(ObjectiveConfig(10, prediction=prediction))  # type: ignore[arg-type]
    assert scheduler.config.prediction_type == theirs
