"""Recording looks on: it changes nothing, and what it keeps is what happened."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrac.data.open import open_dataset
from retrac.diffusion.model import build_unet
from retrac.errors import RetracError
from retrac.gradients import oracle
from retrac.training import estimate as estimates
from retrac.training import loop, recording
from retrac.training.config import TrainConfig
from retrac.training.estimate import StepCosts, estimate_training
from retrac.training.index import PILOT, Index
from retrac.training.inputs import training_inputs
from retrac.training.ledger import Ledger
from retrac.training.loop import first_weights, train
from retrac.training.recording import RECORDED, Recorder, lay_out, steps_ahead
from retrac.training.run import Run
from retrac.training.signals import Interrupted
from tiny import tiny, weights

EVERYTHING = 10**9
"""A sketch that leaves nothing out."""


def refused(config: TrainConfig, output: Path, record: int | None, message: str) -> None:
    """By the training and by its estimate, which leave everything as it was."""
    before = (output / "run.json").read_text()
    with pytest.raises(RetracError, match=message):
        train(config, output, record)
    with pytest.raises(RetracError, match=message):
        estimate_training(config, open_dataset(config.data), output, record)
    assert (output / "run.json").read_text() == before


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adam"}, {"optimizer": "sgd"}, {"mixed_precision": "bf16"}]
)
def test_weights_are_the_same_bits(tmp_path, changes):
    config = tiny(**changes, epochs=2)
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
        shown = training_inputs(run.dataset, run.ledger, epoch, np.arange(24), config.flip)
        gradients = oracle.per_sample_gradients(
            model,
            lambda m=model, s=shown: run.objective.losses(m, *s),
        )
        flat = torch.cat([rows.reshape(24, -1) for rows in gradients.values()], 1)
        norms = flat.norm(dim=1, keepdim=True)
        rate = run.steps[epoch].learning_rate / 24
        rows = index.checkpoint(epoch + 1).read(slice(0, 24))
        np.testing.assert_allclose(rows.norms[:, 0], norms[:, 0], rtol=1e-4)
        np.testing.assert_array_equal(rows.timesteps[:, 0], shown.timesteps)
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
    refused(tiny(epochs=8), own_run, 300, "begun without --record")
    run = train(tiny(epochs=2), tmp_path / "run", record=300)
    refused(tiny(epochs=4), run.path, None, "give --record to go on")
    refused(tiny(epochs=4), run.path, 400, "asked was 300, now 400")
    assert Index.open(train(tiny(epochs=4), run.path, record=300).path / RECORDED).epochs == [2, 4]


@pytest.mark.parametrize("changes", [{"seed": 5}, {"learning_rate": 1e-3}])
def test_a_recording_of_another_training_on_the_same_data_is_refused(tmp_path, changes):
    one = train(tiny(epochs=2, sample_count=0), tmp_path / "one", record=300)
    config = tiny(epochs=2, sample_count=0, **changes)
    other = train(config, tmp_path / "other", record=300)
    assert one.record["dataset"] == other.record["dataset"] and one.origin != other.origin
    shutil.rmtree(other.path / RECORDED)
    shutil.copytree(one.path / RECORDED, other.path / RECORDED)
    refused(config, other.path, 300, "recorded is of another training")


def test_a_recording_that_was_stopped_before_its_first_file_begins_anew(tmp_path):
    (tmp_path / "run" / RECORDED).mkdir(parents=True)
    (tmp_path / "run" / RECORDED / "index.json.partial").write_text("{")
    (tmp_path / "other" / RECORDED).mkdir(parents=True)
    (tmp_path / "other" / RECORDED / "thesis.tex").write_text("precious")
    settings: dict[str, Any] = {"trained": "x"}
    assert Index.found(tmp_path / "run" / RECORDED, settings) is None
    with pytest.raises(RetracError, match="exists and is not an index"):
        Index.found(tmp_path / "other" / RECORDED, settings)
    with pytest.raises(RetracError, match="exists and is not an index"):
        Index.found(tmp_path / "other" / RECORDED / "thesis.tex", settings)


def test_no_pass_holds_more_than_a_batch(tmp_path, monkeypatch):
    passes: list[int] = []

    def watched(dataset, ledger, epoch, indices, flip):
        passes.append(len(indices))
        return training_inputs(dataset, ledger, epoch, indices, flip)

    monkeypatch.setattr(recording, "training_inputs", watched)
    config = tiny(batch_size=7)
    dataset = open_dataset(config.data)
    network = first_weights(config, dataset.shape)
    ledger, device = Ledger(0, len(dataset), 50), torch.device("cpu")
    laid = lay_out(config, 300, network, dataset, ledger, device, look_ahead=2)
    assert passes == [7, 7, 7, 7, 7, 3] and len(dataset) < PILOT  # two steps, then all samples
    assert json.loads(json.dumps(laid)) == laid and 200 < laid["size"] < 400


def test_gradients_that_are_not_finite_end_the_training(tmp_path, monkeypatch):
    gathered = Recorder._gathered
    monkeypatch.setattr(
        Recorder, "_gathered", lambda self, rows, batch: gathered(self, rows, batch) * torch.inf
    )
    with pytest.raises(RetracError, match="a gradient is not finite in epoch 1"):
        train(tiny(epochs=2), tmp_path / "run", record=300)
    assert Run.open(tmp_path / "run")


def test_saving_a_state_takes_longer_with_its_sums(tmp_path, monkeypatch):
    """A second for whatever is measured: for a state, and for the sums of all 24 samples."""
    asked: list[StepCosts] = []
    needs = estimates.training_needs
    monkeypatch.setattr(estimates, "seconds_of", lambda work: work() or 1.0)
    monkeypatch.setattr(
        estimates, "training_needs", lambda *given: asked.append(given[1]) or needs(*given)
    )
    config = tiny(sample_count=0)
    dataset = open_dataset(config.data)
    for record in (None, 300):
        assert estimate_training(config, dataset, tmp_path / "run", record)
    plain, recorded = asked
    assert plain.state == 1 and recorded.state == pytest.approx(2)
    sums = recorded.state_bytes - plain.state_bytes
    assert sums == recorded.held and 2 * 24 * 4 * 200 < sums < 2 * 24 * 4 * 400


@pytest.mark.parametrize(("epochs", "steps"), [(1, 10), (500, 30), (10000, 100)])
def test_a_fiftieth_of_the_steps_is_looked_ahead(epochs, steps):
    assert steps_ahead(tiny(epochs=epochs, batch_size=8), samples=24) == steps
