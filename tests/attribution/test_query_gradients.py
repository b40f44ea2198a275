"""The query side is the same, however its draws are split."""

import pytest
import torch

from retrac.attribution.plan import Plan
from retrac.attribution.query_gradients import gradients_by_timestep
from retrac.diffusion.shown import Seen
from retrac.gradients import oracle
from retrac.training.run import Run


@pytest.mark.parametrize("together", [1, 2, 3])
def test_noises_in_several_passes_are_averaged(tiny_run: Run, together: int) -> None:
    run, checkpoint = tiny_run, tiny_run.checkpoints[-1]
    model = checkpoint.load(run.shape)
    image = run.dataset.tensors([0])[0]
    plan = Plan(torch.tensor([3, 30]), 3, seed=0)
    noise = plan.draw(image)
    twice = Seen(image.expand(2, -1, -1, -1))
    gradients, squared = gradients_by_timestep(
        model, run.objective, twice, plan.timesteps, noise, together
    )
    draws, moments = noise.flatten(0, 1), plan.timesteps.repeat_interleave(3)
    every = oracle.per_sample_gradients(
        model, lambda: run.objective.losses(model, Seen(image.expand_as(draws)), moments, draws)
    )
    total = torch.zeros(2)
    for name, (layout, values) in gradients.items():
        expected = every[name].unflatten(0, (2, 3)).mean(1)
        found = layout.unpack(values)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max())
        total += expected.flatten(1).square().sum(1)
    torch.testing.assert_close(squared, total, rtol=1e-3, atol=0)
