"""The published plan by default's numbers, and noises that belong to the query alone."""

import numpy as np
import torch

from retrac.influence.config import PlanConfig
from retrac.influence.plan import Plan


def test_a_hundred_timesteps_are_the_published_ones() -> None:
    plan = Plan.of(PlanConfig(100, 16), 1000)
    np.testing.assert_array_equal(plan.timesteps, np.linspace(1, 999, 100).astype(int))


def test_more_timesteps_than_there_are_give_each_once() -> None:
    plan = Plan.of(PlanConfig(50, 1), 8)
    assert plan.timesteps.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_noises_depend_on_the_image_and_the_seed_alone() -> None:
    plan = Plan.of(PlanConfig(5, 3), 1000)
    image, other = torch.rand(1, 4, 4), torch.rand(1, 4, 4)
    assert plan.draw(image).shape == (5, 3, 1, 4, 4)
    assert torch.equal(plan.draw(image), plan.draw(image.clone()))
    assert not torch.equal(plan.draw(image), plan.draw(other))
    assert not torch.equal(plan.draw(image), Plan.of(PlanConfig(5, 3, 1), 1000).draw(image))


def test_noises_are_standard_normal() -> None:
    noise = Plan.of(PlanConfig(20, 16), 1000).draw(torch.zeros(1, 16, 16))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
