"""Gradient norms of samples are means over fixed draws of what autograd finds."""

import numpy as np
import torch

from retrac.attribution.asked import Queries
from retrac.attribution.config import ComputeConfig, PlanConfig
from retrac.attribution.plan import Plan
from retrac.diffusion.shown import Seen
from retrac.evaluation.baselines import NAMES, baselines
from retrac.evaluation.gradient_norms import gradient_norms
from retrac.evaluation.losses import training_losses
from retrac.gradients import oracle
from retrac.training.run import Run

DRAWS = PlanConfig(plan_timesteps=3, plan_noises=2)


def test_they_are_means_of_the_norms_that_the_oracle_finds(tiny_run: Run) -> None:
    model = tiny_run.checkpoints[-1].load(tiny_run.shape)
    plan = Plan.of(DRAWS, tiny_run.timesteps)
    moments = plan.timesteps.repeat_interleave(plan.noises)
    expected = []
    for image in tiny_run.dataset.tensors([*range(len(tiny_run.dataset))]):
        seen = Seen(image[None]).repeated(len(moments))
        noise = plan.draw(image).flatten(0, 1)
        gradients = oracle.per_sample_gradients(
            model,
            lambda seen=seen, noise=noise: tiny_run.objective.losses(model, seen, moments, noise),
        )
        rows = torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1)
        expected.append(float(rows.norm(dim=1).mean()))
    np.testing.assert_allclose(gradient_norms(tiny_run, draws=DRAWS), expected, rtol=1e-4)


def test_they_are_the_same_in_little_memory(tiny_run: Run) -> None:
    little = gradient_norms(tiny_run, ComputeConfig("304MB", "cpu"))
    np.testing.assert_allclose(little, gradient_norms(tiny_run), rtol=1e-4)


def test_all_baselines_are_scores_of_all_samples(tiny_run: Run) -> None:
    chosen = tiny_run.dataset.take([4, 0])
    queries = Queries("two", chosen.images, chosen.ids, ("", ""))
    found = baselines(tiny_run, queries)
    assert tuple(found) == NAMES
    for scores in found.values():
        assert scores.shape == (2, len(tiny_run.dataset)) and np.isfinite(scores).all()
    for name in ("pixels", "patches"):
        assert found[name].argmax(1).tolist() == [4, 0]
    for name, values in (
        ("training loss", training_losses(tiny_run)),
        ("gradient norm", gradient_norms(tiny_run)),
    ):
        assert (found[name] == values).all() and (values > 0).all()
