"""Methods that compare features answer from a recording or an index as they do by replay."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrac.attribution import build_index as building
from retrac.attribution import feature_plan
from retrac.attribution.attribute import attribute
from retrac.attribution.attribution import Attribution, part_of
from retrac.attribution.build_index import build_index
from retrac.attribution.config import AttributeConfig, FeatureConfig, IndexConfig, PlanConfig
from retrac.attribution.draws import PARTS
from retrac.attribution.engine import Engine
from retrac.attribution.features import Features
from retrac.attribution.indexed import INDEX
from retrac.attribution.queries import training_samples
from retrac.attribution.sample_features import StoredFeatures
from retrac.attribution.stored_plan import last_sums
from retrac.errors import RetracError
from retrac.store.bins import ONE, TIMESTEPS, BinRows, StoredBins
from retrac.store.feature import StoredFeature
from retrac.store.index import Index
from retrac.store.table import Table
from retrac.training.config import RecordConfig
from retrac.training.loop import train
from retrac.training.recording import RECORDED
from retrac.training.run import Run
from tiny import tiny

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)
KERNEL = ("kernel-retrac",)
FEW = IndexConfig(KERNEL, sketch_size=300)
EVERYTHING = 10**9


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of queries, and of samples on a grid."""
    monkeypatch.setattr(feature_plan, "BIN_GRID", (1, 4))
    monkeypatch.setitem(feature_plan.GRIDS, "medium", (3, 4))


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few events are worth taking by bin."""
    monkeypatch.setattr(feature_plan, "FEWEST", 4)


@pytest.fixture
def run(own_run: Path) -> Run:
    return Run.open(own_run)


def kernel(run: Run, **options: Any) -> Attribution:
    return attribute(run, "train:2", KERNEL, plan=PLAN, **options)


def assert_close(one: np.ndarray, two: np.ndarray, share: float) -> None:
    np.testing.assert_allclose(one, two, atol=share * np.abs(two).max())


def test_a_recording_of_weights_that_did_not_move_is_a_replay(tmp_path, visits):
    config = tiny(optimizer="sgd", learning_rate=1e-30, momentum=0.0, sample_count=0)
    run = train(config, tmp_path / "run", record=RecordConfig(EVERYTHING, bins=3))
    recorded = kernel(run, recorded=True)
    whole = FeatureConfig("visits", outputs=False, layer_numbers=EVERYTHING)
    replayed = kernel(run, features=whole)
    assert_close(recorded.scores.values, replayed.scores.values, 2e-3)
    assert recorded.config["features"][0]["visits"] == [2, 4, 6]
    assert recorded.config["features"][0]["measurements"] == ["loss"]
    # Intervals are the parts of the draws that show errors.
    assert recorded.dataset[part_of("kernel-retrac")].shape == (2, 2, 24)


def test_queries_meet_a_recording_at_the_moving_average_and_an_index_at_its_weights(tmp_path):
    run = train(tiny(epochs=2, sample_count=0), tmp_path / "run", record=RecordConfig(300))
    build_index(run, FEW)
    checkpoint = run.checkpoints[-1]
    for option, load in (("recorded", checkpoint.load_averaged), ("index", checkpoint.load)):
        engine = Engine.of(run, AttributeConfig(KERNEL, plan=PLAN, **{option: True}))
        (work,) = engine.works(training_samples(run, "train:1", [0]))
        network, expected = work.load(), load(run.shape).state_dict()
        assert all(torch.equal(each, expected[name]) for name, each in network.state_dict().items())
    averaged, trained = checkpoint.load_averaged(run.shape), checkpoint.load(run.shape)
    assert not torch.equal(averaged.conv_in.weight, trained.conv_in.weight)


@pytest.mark.parametrize("draws", ["visits", "medium"])
def test_an_index_is_what_would_be_computed_now(run, monkeypatch, request, draws):
    if draws == "visits":
        request.getfixturevalue("visits")
    monkeypatch.setattr(building, "PARTS", PARTS)
    index = build_index(run, replace(FEW, sketch_size=EVERYTHING))
    assert index.features[TIMESTEPS].config["draws"] == draws
    assert index.features[TIMESTEPS].config["measurements"] == [
        "loss",
        "output_mean",
        "output_square",
    ]
    by_index = kernel(run, index=True)
    now = kernel(run, features=FeatureConfig(draws, layer_numbers=EVERYTHING))
    assert_close(by_index.scores.values, now.scores.values, 2e-3)
    parts = part_of("kernel-retrac")
    assert by_index.dataset[parts].shape[0] == 2
    assert_close(by_index.dataset[parts].values, now.dataset[parts].values, 2e-2)


def test_an_index_of_the_loss_alone_and_of_other_draws(run):
    index = build_index(run, replace(FEW, outputs=False, draws="medium", sketch_size=EVERYTHING))
    assert index.features[TIMESTEPS].config["measurements"] == ["loss"]
    assert index.features[TIMESTEPS].config["draws"] == "medium"
    now = FeatureConfig("medium", outputs=False, layer_numbers=EVERYTHING)
    assert_close(
        kernel(run, index=True).scores.values, kernel(run, features=now).scores.values, 2e-3
    )
    with pytest.raises(RetracError, match="index"):
        build_index(run, replace(FEW, sketch_size=EVERYTHING))


def test_no_pass_over_the_training_set(run, monkeypatch):
    build_index(run, FEW)
    monkeypatch.setattr(type(run), "shown", None)  # what training showed the network
    monkeypatch.setattr("retrac.attribution.sample_features.features", None)
    assert np.isfinite(kernel(run, index=True).scores.values).all()


def test_an_interrupted_index_goes_on_with_the_same_result(run, monkeypatch):
    monkeypatch.setattr("retrac.store.table.CHUNK", 10)
    whole = build_index(run, FEW)
    table = StoredBins(whole.features[TIMESTEPS], 6).table
    expected, counts = table.read("sums"), table.read("count")
    assert len(table.chunks) == 3
    whole.features[TIMESTEPS].remove(6)
    write, left = StoredBins.write, iter(range(2))

    def stopped(self: StoredBins, samples: slice, rows: BinRows) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(self, samples, rows)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StoredBins, "write", stopped)
        build_index(run, FEW)
    assert table.missing == [slice(20, 24)]
    with pytest.raises(RetracError, match="is not whole: the checkpoint of epoch 6"):
        kernel(run, index=True)
    build_index(run, FEW)
    np.testing.assert_array_equal(table.read("sums"), expected)
    np.testing.assert_array_equal(table.read("count"), counts)


def test_a_longer_run_is_indexed_at_its_last_checkpoint(tmp_path):
    run = train(tiny(epochs=4, sample_count=0), tmp_path / "run")
    methods = ("kernel-retrac", "tracin")
    build_index(run, replace(FEW, methods=methods))
    longer = train(tiny(epochs=6, sample_count=0), run.path)
    index = build_index(longer, replace(FEW, methods=("tracin",)))  # all that is there grows
    assert index.features[TIMESTEPS].begun() == [6]
    assert index.features["intervals"].begun() == [2, 4, 6]
    result = attribute(longer, "train:1", plan=PLAN, index=True)
    assert list(result.methods) == list(methods)


def test_a_damaged_chunk_is_told_in_one_line(run):
    index = build_index(run, FEW)
    folder = StoredBins(index.features[TIMESTEPS], 6).table.path / "sums.zarr"
    for piece in [path for path in folder.rglob("*") if path.is_file()]:
        if piece.suffix != ".json" and piece.name[0] != ".":
            piece.write_bytes(piece.read_bytes()[:5])
    with pytest.raises(RetracError, match=r"sums\.zarr is damaged .*make it again") as refusal:
        kernel(run, index=True)
    assert "\n" not in str(refusal.value)


def test_what_a_recording_lacks_is_refused(tmp_path):
    run = train(tiny(epochs=2, sample_count=0), tmp_path / "run", record=RecordConfig(300))
    result = attribute(run, "train:1", plan=PLAN, recorded=True)
    assert list(result.methods) == ["kernel-retrac", "retrac", "tracin"]
    for method in ("d-trak", "adam"):
        with pytest.raises(RetracError, match=f"does not hold what '{method}' needs: .*recorded"):
            attribute(run, "train:1", ("tracin", method), plan=PLAN, recorded=True)
    assert Index.open(run.path / RECORDED).features[TIMESTEPS].config["bins"] == 8
    assert not (run.path / INDEX).exists()


@pytest.mark.parametrize(
    ("checkpoints", "epochs"),
    [
        ([50, 100, 150], (100, 150)),
        ([100], (100,)),
        ([64, 128], (128,)),
        ([2, 4, 6], (2, 4, 6)),
        ([10, 40, 300], (300,)),
    ],
)
def test_the_last_intervals_with_64_visits_are_taken_together(checkpoints, epochs):
    feature = StoredFeature(Path("nowhere"), TIMESTEPS, {})
    assert last_sums(feature, checkpoints) == epochs
    alone = StoredFeature(Path("nowhere"), TIMESTEPS, {"at": 40})
    assert last_sums(alone, checkpoints) == (40,)


def test_sums_of_checkpoints_add_up_in_parts(tmp_path):
    layout = {"seed": 0, "sizes": {"a.weight": [4, 1]}, "widths": [4]}
    config = {"measurements": ["loss", "output_mean"], "weights": [ONE], "sketch": layout}
    feature = StoredFeature(tmp_path, TIMESTEPS, {**config, "bins": 2, "parts": 1})
    stream = np.random.default_rng(0)
    rows = [
        BinRows(
            stream.normal(size=(5, 2, 2, 1, 4)).astype(np.float32), stream.integers(1, 5, (5, 2, 1))
        )
        for _ in range(3)
    ]
    places = [StoredBins(feature, epoch) for epoch in (2, 4, 6)]
    for place, each in zip(places, rows, strict=True):
        place.begin(5)
        place.write(slice(0, 5), each)

    def read(parts: int) -> Features:
        model: Any = torch.nn.Identity()
        return StoredFeatures(places, [1], parts).read("", 1, 0, model, None, print)

    two = read(2)
    expected = [rows[0].sums + rows[2].sums, rows[1].sums]
    for part, sums in enumerate(expected):
        np.testing.assert_allclose(two.sums[0, part], sums[:, 1, 1, 0], atol=5e-3)
    np.testing.assert_array_equal(two.counts[0], (rows[0].counts + rows[2].counts)[:, 1, 0])
    one = read(1)
    np.testing.assert_allclose(one.mean(), two.mean(), atol=1e-5)
    assert Table(tmp_path / "epoch-0004" / "timesteps-one").is_whole
