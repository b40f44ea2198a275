"""Recording looks on: it changes nothing, and what it keeps is what happened."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from retrac.diffusion.model import build_unet
from retrac.errors import RetracError
from retrac.gradients import oracle
from retrac.training import loop
from retrac.training.index import Index
from retrac.training.inputs import training_inputs
from retrac.training.loop import train
from retrac.training.recording import RECORDED, Recorder, steps_ahead
from retrac.training.run import Run
from retrac.training.signals import Interrupted
from tiny import tiny, weights

EVERYTHING = 10**9
"""A sketch that leaves nothing out."""


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_are_the_same_bits(tmp_path, optimizer):
    config = tiny(optimizer=optimizer, epochs=2)
    plain = train(config, tmp_path / "plain")
    recorded = train(config, tmp_path / "recorded", record=500)
    for one, two in zip(plain.checkpoints, recorded.checkpoints, strict=True):
        first, second = weights(one.path), weights(two.path)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert plain.steps == recorded.steps


def test_visits_count_at_the_weights_they_met(tmp_path):
    """With one step an epoch and a checkpoint after each, those weights are at hand."""
    config = tiny(epochs=2, checkpoint_every=1, batch_size=24, optimizer="sgd", momentum=0.0)
    run = train(config, tmp_path / "run", record=EVERYTHING)
    index = Index.open(run.path / RECORDED)
    models = [
        build_unet(config.model, run.shape, config.seed),
        run.checkpoints[0].load(run.shape),
    ]
    for epoch, model in enumerate(models):
        images, timesteps, noise = training_inputs(
            run.dataset, run.ledger, epoch, np.arange(24), config.flip
        )
        gradients = oracle.per_sample_gradients(
            model,
            lambda m=model, x=images, t=timesteps, e=noise: run.objective.losses(m, x, t, e),
        )
        flat = torch.cat([rows.reshape(24, -1) for rows in gradients.values()], 1)
        norms = flat.norm(dim=1, keepdim=True)
        rate = run.steps[epoch].learning_rate / 24
        rows = index.checkpoint(epoch + 1).read(slice(0, 24))
        np.testing.assert_allclose(rows.norms[:, 0], norms[:, 0], rtol=1e-4)
        np.testing.assert_array_equal(rows.timesteps[:, 0], timesteps)
        # The order of the numbers is the sketch's own, inner products are not.
        for found, expected in zip(rows.sketches, (flat * rate, flat / norms * rate), strict=True):
            gram = (expected @ expected.T).numpy()
            np.testing.assert_allclose(found @ found.T, gram, atol=2e-3 * np.abs(gram).max())


def test_a_stopped_recording_goes_on_with_the_same_result(tmp_path, monkeypatch):
    config = tiny(epochs=4)
    whole = train(config, tmp_path / "whole", record=300)
    steps = iter(range(100))
    monkeypatch.setattr(
        loop,
        "stop_requests",
        lambda alone: nullcontext(lambda: next(steps) >= 6),
    )
    with pytest.raises(Interrupted):
        train(config, tmp_path / "stopped", record=300)
    monkeypatch.undo()
    stopped = train(config, tmp_path / "stopped", record=300)
    one, two = (Index.open(run.path / RECORDED) for run in (whole, stopped))
    assert one.epochs == two.epochs == [2, 4]
    for epoch in one.epochs:
        rows, again = (index.checkpoint(epoch).read(slice(0, 24)) for index in (one, two))
        assert np.array_equal(rows.sketches, again.sketches)
        assert np.array_equal(rows.norms, again.norms) and not np.isnan(rows.norms).any()


def test_only_from_the_start(own_run: Path, tmp_path):
    with pytest.raises(RetracError, match="begun without --record"):
        train(tiny(epochs=8), own_run, record=300)
    run = train(tiny(epochs=2), tmp_path / "run", record=300)
    with pytest.raises(RetracError, match="give --record to go on"):
        train(tiny(epochs=4), run.path)
    with pytest.raises(RetracError, match="asked was 300, now 400"):
        train(tiny(epochs=4), run.path, record=400)
    assert Index.open(train(tiny(epochs=4), run.path, record=300).path / RECORDED).epochs == [2, 4]


def test_gradients_that_are_not_finite_end_the_training(tmp_path, monkeypatch):
    gathered = Recorder._gathered
    monkeypatch.setattr(
        Recorder, "_gathered", lambda self, rows, batch: gathered(self, rows, batch) * torch.inf
    )
    with pytest.raises(RetracError, match="a gradient is not finite in epoch 1"):
        train(tiny(epochs=2), tmp_path / "run", record=300)
    assert Run.open(tmp_path / "run")


@pytest.mark.parametrize(("epochs", "steps"), [(1, 10), (500, 30), (10000, 100)])
def test_a_fiftieth_of_the_steps_is_looked_ahead(epochs, steps):
    assert steps_ahead(tiny(epochs=epochs, batch_size=8), samples=24) == steps
