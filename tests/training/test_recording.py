"""Recording looks on: it changes nothing, and what it keeps is what happened."""

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
from retrac.files import read_json, write_json
from retrac.gradients import oracle
from retrac.store.bins import TIMESTEPS, StoredBins
from retrac.store.index import Index
from retrac.store.intervals import INTERVALS, IntervalRows, StoredInterval
from retrac.training import estimate as estimates
from retrac.training import loop
from retrac.training.config import RecordConfig, TrainConfig
from retrac.training.estimate import StepCosts, estimate_training
from retrac.training.inputs import training_inputs
from retrac.training.loop import train
from retrac.training.recording import RECORDED, Recorder
from retrac.training.run import Run
from retrac.training.signals import Interrupted
from tiny import tiny, weights

EVERYTHING = RecordConfig(10**9)
"""Sketches that leave nothing out."""
FEW = RecordConfig(300)


def interval_of(run: Run, epoch: int) -> IntervalRows:
    """What was recorded before a checkpoint."""
    feature = Index.open(run.path / RECORDED).features[INTERVALS]
    return StoredInterval(feature, epoch).read(slice(0, 24), feature.weights)


def bins_of(run: Run, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums `[N, bins, d]` and counts `[N, bins]` that were recorded before a checkpoint."""
    feature = Index.open(run.path / RECORDED).features[TIMESTEPS]
    stored = StoredBins(feature, epoch)
    read = [stored.read(which) for which in range(feature.config["bins"])]
    return (
        np.stack([sums[:, 0, 0] for sums, _ in read], 1),
        np.stack([counts[:, 0] for _, counts in read], 1),
    )


def refused(config: TrainConfig, output: Path, record: RecordConfig | None, message: str) -> None:
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
    recorded = train(config, tmp_path / "recorded", record=RecordConfig(500))
    for one, two in zip(plain.checkpoints, recorded.checkpoints, strict=True):
        first, second = weights(one.path), weights(two.path)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert plain.steps == recorded.steps


def test_visits_count_at_the_weights_they_met(tmp_path):
    """With one step an epoch and a checkpoint after each, those weights are at hand."""
    config = tiny(epochs=2, checkpoint_every=1, batch_size=24, optimizer="sgd", momentum=0.0)
    run = train(config, tmp_path / "run", record=EVERYTHING)
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
        rows = interval_of(run, epoch + 1)
        np.testing.assert_allclose(rows.norms[:, 0], norms[:, 0], rtol=1e-4)
        np.testing.assert_array_equal(rows.timesteps[:, 0], shown.timesteps)
        # The order of the numbers is the sketch's own, inner products are not.
        expected = {"one": flat * rate, "inverse_norm": flat / norms * rate}
        assert rows.sums.keys() == expected.keys()
        for weight, found in rows.sums.items():
            gram = (expected[weight] @ expected[weight].T).numpy()
            np.testing.assert_allclose(found @ found.T, gram, atol=2e-3 * np.abs(gram).max())
        sums, counts = bins_of(run, epoch + 1)
        which = shown.timesteps.numpy() * 8 // 50
        np.testing.assert_array_equal(counts, np.eye(8, dtype=int)[which])
        assert not sums[counts == 0].any()
        gram = (flat @ flat.T).numpy()
        found = sums[np.arange(24), which]
        np.testing.assert_allclose(found @ found.T, gram, atol=2e-3 * np.abs(gram).max())


def test_visits_of_a_bin_add_up(tmp_path):
    """As single visits do that are recorded one by one: a checkpoint after each epoch changes no
    step."""
    record = RecordConfig(300, bins=3)
    single = train(tiny(checkpoint_every=1), tmp_path / "single", record=record)
    both = train(tiny(checkpoint_every=3), tmp_path / "both", record=record)
    by_epoch = [bins_of(single, epoch) for epoch in (4, 5, 6)]
    sums, counts = bins_of(both, 6)
    assert counts.max() > 1 and (counts.sum(1) == 3).all()
    np.testing.assert_array_equal(counts, sum(each for _, each in by_epoch))
    expected = sum(each for each, _ in by_epoch)
    np.testing.assert_allclose(sums, expected, atol=2e-3 * np.abs(expected).max())
    whole = {
        name: sum(interval_of(single, epoch).sums[name] for epoch in (4, 5, 6))
        for name in ("one", "inverse_norm")
    }
    for name, found in interval_of(both, 6).sums.items():
        np.testing.assert_allclose(found, whole[name], atol=2e-3 * np.abs(whole[name]).max())


def test_a_stopped_recording_goes_on_with_the_same_result(tmp_path, monkeypatch):
    config = tiny(epochs=4)
    whole = train(config, tmp_path / "whole", record=FEW)
    steps = iter(range(100))
    monkeypatch.setattr(
        loop,
        "stop_requests",
        lambda alone: nullcontext(lambda: next(steps) >= 6),
    )
    with pytest.raises(Interrupted):
        train(config, tmp_path / "stopped", record=FEW)
    monkeypatch.undo()
    stopped = train(config, tmp_path / "stopped", record=FEW)
    for epoch in (2, 4):
        rows, again = (interval_of(run, epoch) for run in (whole, stopped))
        assert all(np.array_equal(rows.sums[name], again.sums[name]) for name in rows.sums)
        assert np.array_equal(rows.norms, again.norms) and not np.isnan(rows.norms).any()
        for one, two in zip(bins_of(whole, epoch), bins_of(stopped, epoch), strict=True):
            assert np.array_equal(one, two)


def test_only_from_the_start(own_run: Path, tmp_path):
    refused(tiny(epochs=8), own_run, FEW, "begun without --record")
    run = train(tiny(epochs=2), tmp_path / "run", record=FEW)
    refused(tiny(epochs=4), run.path, None, "give --record to go on")
    refused(tiny(epochs=4), run.path, RecordConfig(400), "sketch_size was 300, now 400")
    longer = train(tiny(epochs=4), run.path, record=FEW)
    features = Index.open(longer.path / RECORDED).features.values()
    assert [feature.begun() for feature in features] == [[2, 4], [2, 4]]


@pytest.mark.parametrize("lacking", ["timesteps", "inverse_norm"])
def test_what_was_not_recorded_from_the_start_is_refused(tmp_path, lacking):
    """Of a feature or weight that an earlier version did not know."""
    run = train(tiny(epochs=2, sample_count=0), tmp_path / "run", record=FEW)
    path = run.path / RECORDED / "index.json"
    config = read_json(path)
    if lacking == "timesteps":
        del config["features"][lacking]
    else:
        config["features"][INTERVALS]["weights"].remove(lacking)
    write_json(path, config)
    refused(tiny(epochs=4, sample_count=0), run.path, FEW, "by a version that records less")


@pytest.mark.parametrize("changes", [{"seed": 5}, {"learning_rate": 1e-3}])
def test_a_recording_of_another_training_on_the_same_data_is_refused(tmp_path, changes):
    one = train(tiny(epochs=2, sample_count=0), tmp_path / "one", record=FEW)
    config = tiny(epochs=2, sample_count=0, **changes)
    other = train(config, tmp_path / "other", record=FEW)
    assert one.record["dataset"] == other.record["dataset"] and one.origin != other.origin
    shutil.rmtree(other.path / RECORDED)
    shutil.copytree(one.path / RECORDED, other.path / RECORDED)
    refused(config, other.path, FEW, "recorded is of another training")


def test_a_recording_that_was_stopped_before_its_first_file_begins_anew(tmp_path):
    (tmp_path / "run" / RECORDED).mkdir(parents=True)
    (tmp_path / "run" / RECORDED / "index.json.partial").write_text("{")
    (tmp_path / "other" / RECORDED).mkdir(parents=True)
    (tmp_path / "other" / RECORDED / "thesis.tex").write_text("precious")
    settings: dict[str, Any] = {"trained": "x", "features": {}}
    assert Index.resumed(tmp_path / "run" / RECORDED, settings) is None
    with pytest.raises(RetracError, match="exists and is not an index"):
        Index.resumed(tmp_path / "other" / RECORDED, settings)
    with pytest.raises(RetracError, match="exists and is not an index"):
        Index.resumed(tmp_path / "other" / RECORDED / "thesis.tex", settings)


def test_gradients_that_are_not_finite_end_the_training(tmp_path, monkeypatch):
    gathered = Recorder._gathered
    monkeypatch.setattr(
        Recorder, "_gathered", lambda self, rows, batch: gathered(self, rows, batch) * torch.inf
    )
    with pytest.raises(RetracError, match="a gradient is not finite in epoch 1"):
        train(tiny(epochs=2), tmp_path / "run", record=FEW)
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
    for record in (None, FEW):
        assert estimate_training(config, dataset, tmp_path / "run", record)
    plain, recorded = asked
    assert plain.state == 1 and recorded.state == pytest.approx(2)
    sums = recorded.state_bytes - plain.state_bytes
    assert sums == recorded.held and 10 * 24 * 4 * 250 < sums < 10 * 24 * 4 * 500
