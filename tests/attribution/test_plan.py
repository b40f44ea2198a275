"""Named plans and their numbers, and noises that belong to the query alone."""

import numpy as np
import pytest
import torch

from retrac.attribution.config import PLANS, PlanConfig
from retrac.attribution.plan import Plan
from retrac.errors import RetracError


def test_the_published_plan_is_the_published_one() -> None:
    plan = Plan.of(PlanConfig(plan="published"), 1000)
    np.testing.assert_array_equal(plan.timesteps, np.linspace(1, 999, 100).astype(int))
    assert plan.noises == 16 and not plan.pairs


@pytest.mark.parametrize("name", ["fast", "default"])
def test_timesteps_stand_for_equal_parts(name: str) -> None:
    config = PlanConfig(plan=name)
    timesteps = Plan.of(config, 1000).timesteps
    part = 1000 // len(timesteps)
    assert timesteps.tolist() == list(range(part // 2, 1000, part))
    assert (len(timesteps), config.noises) == PLANS[name]


def test_more_timesteps_than_there_are_give_each_once() -> None:
    assert Plan.of(PlanConfig(50, 1), 8).timesteps.tolist() == list(range(8))
    published = Plan.of(PlanConfig(50, 1, plan="published"), 8)
    assert published.timesteps.tolist() == list(range(1, 8))


def test_single_numbers_override_those_of_a_named_plan() -> None:
    config = PlanConfig(plan_noises=8, plan="published")
    assert (config.timesteps, config.noises) == (100, 8)
    config = PlanConfig(plan_timesteps=7, plan="fast")
    assert (config.timesteps, config.noises) == (7, PLANS["fast"][1])


def test_settings_say_the_numbers_whatever_gave_them() -> None:
    timesteps, noises = PLANS["default"]
    assert PlanConfig().settings == PlanConfig(timesteps, noises, plan="fast").settings
    assert PlanConfig().settings["plan_timesteps"] == timesteps
    assert PlanConfig().settings != PlanConfig(timesteps, noises, plan="published").settings


def test_wrong_numbers_and_names_are_refused() -> None:
    with pytest.raises(RetracError, match="--plan-timesteps and --plan-noises must be at least 1"):
        PlanConfig(plan_timesteps=0)
    with pytest.raises(RetracError, match="--plan-seed must be at least 0"):
        PlanConfig(plan_seed=-1)
    with pytest.raises(RetracError, match="unknown plan 'publisht': did you mean 'published'"):
        PlanConfig(plan="publisht")


def test_noises_depend_on_the_image_and_the_seed_alone() -> None:
    plan = Plan.of(PlanConfig(5, 3), 1000)
    image, other = torch.rand(1, 4, 4), torch.rand(1, 4, 4)
    assert plan.draw(image).shape == (5, 3, 1, 4, 4)
    assert torch.equal(plan.draw(image), plan.draw(image.clone()))
    assert not torch.equal(plan.draw(image), plan.draw(other))
    assert not torch.equal(plan.at(2).draw(image), plan.at(4).draw(image))
    assert not torch.equal(plan.draw(image), Plan.of(PlanConfig(5, 3, 1), 1000).draw(image))


def test_noises_are_pairs_of_opposite_sign() -> None:
    noise = Plan.of(PlanConfig(5, 5), 1000).draw(torch.zeros(1, 4, 4))
    assert torch.equal(noise[:, 1], -noise[:, 0]) and torch.equal(noise[:, 3], -noise[:, 2])
    firsts = noise[:, ::2].flatten(0, 1)
    assert len(torch.unique(firsts.abs(), dim=0)) == len(firsts)  # no other two are related


def test_published_noises_are_independent() -> None:
    noise = Plan.of(PlanConfig(5, 4, plan="published"), 1000).draw(torch.zeros(1, 4, 4))
    every = noise.flatten(0, 1)
    assert len(torch.unique(every.abs(), dim=0)) == len(every)


@pytest.mark.parametrize("plan", ["default", "published"])
def test_noises_are_standard_normal(plan: str) -> None:
    noise = Plan.of(PlanConfig(20, 16, plan=plan), 1000).draw(torch.zeros(1, 16, 16))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
