"""Losses of images are means over the plan's draws."""

import numpy as np
import torch

from retrac.attribution.asked import Asked
from retrac.attribution.config import PlanConfig
from retrac.attribution.plan import Plan
from retrac.diffusion.shown import Seen
from retrac.evaluation import losses
from retrac.training.run import Run


def test_losses_are_means_over_the_draws(tiny_run: Run) -> None:
    model, objective = tiny_run.checkpoints[-1].load(tiny_run.shape), tiny_run.objective
    plan = Plan.of(PlanConfig(3, 2), tiny_run.config.objective.timesteps)
    images = tiny_run.dataset.tensors([0, 5])
    expected = []
    with torch.no_grad():
        for image in images:
            drawn = [
                float(objective.losses(model, Seen(image[None]), moment[None], noise[None]))
                for moment, noises in zip(plan.timesteps, plan.draw(image), strict=True)
                for noise in noises
            ]
            expected.append(np.mean(drawn))
    asked = Asked(Seen(images), images)
    found = losses.mean_losses(model, tiny_run.objective, plan, asked)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        losses.mean_losses(model, tiny_run.objective, plan, asked, 4), expected, rtol=1e-5
    )


def test_a_dataset_s_part_keeps_ids_and_labels(tiny_run: Run) -> None:
    part = tiny_run.dataset.take([3, 1])
    assert part.ids == (tiny_run.dataset.ids[3], tiny_run.dataset.ids[1])
    assert (part.images == tiny_run.dataset.images[[3, 1]]).all()
    assert part.labels is not None and len(part.labels) == 2
