"""Tables of draws give the scores of any plan, as the formulas have them."""

import numpy as np
import pytest
import torch

from attribution.formulas import gradient
from benchmarks.plans.candidates import Choice, scores
from benchmarks.plans.tables import PARTNERS, SHARED, TEST, Samples, fill, noises_of
from retrac.attribution.config import AttributeConfig
from retrac.attribution.scorer import Scorer
from retrac.training.inputs import training_inputs
from retrac.training.run import Run


def test_scores_of_a_plan_put_together_from_a_table(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.plans.tables.TIMESTEPS", 10)
    scorer = Scorer.of(tiny_run, AttributeConfig(checkpoints=(6,)))
    (replay,) = scorer.replays
    model = scorer.model(replay)
    image = tiny_run.dataset.tensors(np.array([5]))[0]
    table = fill(tiny_run, model, Samples.of(tiny_run, model, replay, 3), image, seed=0)
    timesteps = np.array([2, 5, 9])
    choice = Choice(timesteps, np.array([0.2, 0.3, 0.5]), np.array([[16, 32], [0, 40], [17, 43]]))

    means = []
    for at, draws in zip(timesteps, choice.draws, strict=True):
        t = int(np.linspace(1, 49, 10)[at])
        noises = noises_of(image, 0)[at, draws]
        means.append(torch.stack([gradient(tiny_run, model, image, t, e) for e in noises]).mean(0))
    tracin = sum(weight * mean for weight, mean in zip(choice.weights, means, strict=True))
    retrac = sum(w * mean / mean.norm() for w, mean in zip(choice.weights, means, strict=True))
    expected = np.zeros((2, 3))
    for place, sample in enumerate((0, 8, 16)):
        x, t, e = training_inputs(tiny_run.dataset, tiny_run.ledger, 5, np.array([sample]), True)
        g = gradient(tiny_run, model, x.clean[0], int(t), e[0])
        weight = replay.weights[0, sample]
        expected[:, place] = float(tracin @ g) * weight, float(retrac @ g / g.norm()) * weight
    np.testing.assert_allclose(scores(table, choice), expected, rtol=1e-3, atol=1e-9)


def test_noises_of_a_table() -> None:
    noises = noises_of(torch.rand(1, 4, 4), seed=0)
    assert torch.equal(noises[:, PARTNERS], -noises[:, TEST][:, : len(PARTNERS)])
    assert torch.equal(noises[3, SHARED], noises[70, SHARED])
    independent = noises[:, : TEST.stop].flatten(0, 1)
    assert len(torch.unique(independent, dim=0)) == len(independent)
