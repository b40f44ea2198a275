"""An index answers as the exact scores do, as far as its sketches reach."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from retrac.errors import RetracError
from retrac.influence import indexed
from retrac.influence.attribute import attribute
from retrac.influence.config import ComputeConfig, IndexConfig, PlanConfig
from retrac.influence.indexed import build_index
from retrac.training.index import FORMAT, Index, IndexedCheckpoint, Rows
from retrac.training.loop import train
from retrac.training.run import Run
from tiny import tiny

EVERYTHING = 10**9
PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)


@pytest.fixture
def run(own_run: Path) -> Run:
    return Run.open(own_run)


def test_with_room_for_everything_scores_are_the_exact_ones(run):
    build_index(run, IndexConfig(replay="all", sketch_size=EVERYTHING))
    by_index = attribute(run, "train:3", plan=PLAN, index=True)
    exact = attribute(run, "train:3", plan=PLAN, replay="all")
    scale = np.abs(exact.contributions.values).max(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(
        by_index.contributions.values / scale, exact.contributions.values / scale, atol=2e-3
    )
    for name in ("train_norm", "query_norm", "train_weight"):
        np.testing.assert_allclose(
            by_index.dataset[name].values, exact.dataset[name].values, rtol=1e-3
        )
    assert np.array_equal(by_index.dataset["train_timestep"], exact.dataset["train_timestep"])
    assert not by_index.dataset["exact"].values.any() and exact.dataset["exact"].values.all()


def test_small_sketches_estimate(run):
    index = build_index(run, IndexConfig(replay="all", sketch_size=2000))
    assert index.config["size"] < 3000
    by_index = attribute(run, "train:4", plan=PLAN, index=True)
    exact = attribute(run, "train:4", plan=PLAN, replay="all")
    for method in exact.methods:
        one, two = (result.scores_of(method).values for result in (by_index, exact))
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.95


def test_best_candidates_are_scored_exactly(run, tmp_path):
    build_index(run, IndexConfig(sketch_size=500))
    best = attribute(run, "train:2", plan=PLAN, index=True, exact_top=3, output=tmp_path / "result")
    exact = attribute(run, "train:2", plan=PLAN)
    chosen = best.dataset["exact"].values
    assert 3 <= chosen.sum() <= 12
    np.testing.assert_allclose(
        best.contributions.values[..., chosen],
        exact.contributions.values[..., chosen],
        rtol=1e-3,
        atol=1e-9,
    )
    everything = attribute(run, "train:2", plan=PLAN, index=True, exact_top=24)
    np.testing.assert_allclose(everything.scores, exact.scores, rtol=1e-3, atol=1e-9)


def test_an_interrupted_index_goes_on_with_the_same_result(run, monkeypatch):
    config = IndexConfig(sketch_size=300)
    monkeypatch.setattr(indexed, "CHUNK", 10)
    whole = build_index(run, config)
    expected = [whole.checkpoint(epoch).read(slice(0, 24)) for epoch in whole.epochs]
    shutil.rmtree(whole.path)
    write = IndexedCheckpoint.write
    left = iter(range(4))

    def dying(self: IndexedCheckpoint, samples: slice, rows: Rows) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(self, samples, rows)

    monkeypatch.setattr(IndexedCheckpoint, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        build_index(run, config)
    with pytest.raises(RetracError, match="is not whole"):
        attribute(run, "train:1", plan=PLAN, index=True)
    monkeypatch.setattr(IndexedCheckpoint, "write", write)
    again = build_index(run, config)
    for epoch, rows in zip(again.epochs, expected, strict=True):
        assert np.array_equal(again.checkpoint(epoch).read(slice(0, 24)).sketches, rows.sketches)


def test_memory_does_not_change_an_index(run, monkeypatch):
    whole = build_index(run, IndexConfig(sketch_size=300))
    rows = whole.checkpoint(2).read(slice(0, 24)).sketches
    shutil.rmtree(whole.path)
    monkeypatch.setattr("retrac.influence.memory.TEMPORARY_BYTES", 2**18)
    small = build_index(
        run, IndexConfig(sketch_size=300, compute=ComputeConfig(memory_budget="2MB"))
    )
    np.testing.assert_allclose(
        small.checkpoint(2).read(slice(0, 24)).sketches, rows, atol=2e-3 * np.abs(rows).max()
    )


def test_answers_from_a_recording(tmp_path):
    run = train(tiny(epochs=4), tmp_path / "run", record=EVERYTHING)
    result = attribute(run, "train:2", plan=PLAN, recorded=True)
    assert list(result.dataset["checkpoint"].values) == [2, 4]
    assert result.config["index"]["kind"] == "recorded"
    replayed = attribute(run, "train:2", plan=PLAN, replay="all")
    for method in result.methods:  # at other weights, but the same visits
        one, two = (found.scores_of(method).values.ravel() for found in (result, replayed))
        assert np.corrcoef(one, two)[0, 1] > 0.5
    assert np.array_equal(result.dataset["train_timestep"], replayed.dataset["train_timestep"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": True}, "has no 'index' folder: make it with `retrac index`"),
        ({"recorded": True}, "has no 'recorded' folder: make it with `retrac train --record`"),
        ({"index": True, "recorded": True}, "give either --index or --recorded"),
        ({"exact_top": 5}, "--exact-top goes with --index"),
        ({"index": True, "exact_top": -1}, "--exact-top must be at least 0"),
    ],
)
def test_what_is_not_there_is_refused(tiny_run, options, message):
    with pytest.raises(RetracError, match=message):
        attribute(tiny_run, "train:1", plan=PLAN, **options)


def test_other_settings_are_refused(run):
    build_index(run, IndexConfig(sketch_size=300, checkpoints=(2, 6)))
    with pytest.raises(RetracError, match=r"asked was 300, now 400"):
        build_index(run, IndexConfig(sketch_size=400, checkpoints=(2, 6)))
    with pytest.raises(RetracError, match="has --replay last, not all"):
        attribute(run, "train:1", plan=PLAN, index=True, replay="all")
    with pytest.raises(RetracError, match="has --parameters"):
        attribute(run, "train:1", plan=PLAN, index=True, parameters="conv")
    result = attribute(run, "train:1", plan=PLAN, index=True, checkpoints=(2, 6))
    assert list(result.dataset["checkpoint"].values) == [2, 6]
    with pytest.raises(RetracError, match="--sketch-size must be at least 1"):
        IndexConfig(sketch_size=0)


def test_an_index_of_another_training_is_refused(run, tmp_path):
    build_index(run, IndexConfig(sketch_size=300))
    other = train(tiny(seed=5), tmp_path / "other")
    shutil.copytree(run.path / "index", other.path / "index")
    with pytest.raises(RetracError, match="is of another training"):
        attribute(other, "train:1", plan=PLAN, index=True)


def test_damage_is_told_in_one_line(run):
    index = build_index(run, IndexConfig(sketch_size=300))
    (index.path / "index.json").write_text("{}")
    with pytest.raises(RetracError, match="is damaged"):
        Index.open(index.path)
    with pytest.raises(RetracError, match="no index at"):
        Index.open(run.path / "nowhere")


@pytest.mark.parametrize("name", ["sketch", "scale", "norm", "timestep", "done"])
def test_a_damaged_piece_is_told_in_one_line(run, name):
    index = build_index(run, IndexConfig(sketch_size=300))
    files = [path for path in index.path.glob(f"*/{name}.zarr/**/*") if path.is_file()]
    pieces = [path for path in files if not path.name.endswith(".json")]
    assert pieces
    for piece in pieces:
        piece.write_bytes(piece.read_bytes()[:5])
    with pytest.raises(RetracError, match=rf"{name}\.zarr is damaged .*make it again"):
        attribute(run, "train:1", plan=PLAN, index=True)


def test_interrupted_answers_go_on(run, tmp_path, monkeypatch):
    build_index(run, IndexConfig(sketch_size=300))
    whole = attribute(run, "train:2", plan=PLAN, index=True)
    asked: list[str] = []
    query_sketches = indexed.query_sketches

    def stop_at_the_second(*given):
        asked.append(given[8])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return query_sketches(*given)

    monkeypatch.setattr(indexed, "query_sketches", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        attribute(run, "train:2", plan=PLAN, index=True, output=tmp_path / "result")
    again = attribute(run, "train:2", plan=PLAN, index=True, output=tmp_path / "result")
    names = [checkpoint.path.name for checkpoint in run.checkpoints]
    assert asked == [*names[:2], *names[1:]]
    assert np.array_equal(again.contributions.values, whole.contributions.values)
    assert not list(tmp_path.glob("*.parts"))


def test_an_index_of_another_format_is_refused(run):
    index = build_index(run, IndexConfig(sketch_size=300))
    text = (index.path / "index.json").read_text()
    assert f'"format": {FORMAT}' in text
    (index.path / "index.json").write_text(text.replace(f'"format": {FORMAT}', '"format": 1'))
    with pytest.raises(RetracError, match="made by another version"):
        Index.open(index.path)


def test_float16_keeps_rows_of_any_scale(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2, 5, 30)).astype(np.float32)
    rows *= np.float32(10.0) ** np.array([-30, -9, 0, 9, 30], np.float32)[:, None]
    rows[0, 2] = 0
    part = IndexedCheckpoint.create(tmp_path / "part", 2, 5, 30, 1, 3)
    for piece in part.missing:
        count = piece.stop - piece.start
        part.write(piece, Rows(rows[:, piece], np.ones((count, 1)), np.ones((count, 1), np.int64)))
    found = part.read(slice(0, 5)).sketches
    largest = np.abs(rows).max(axis=2, keepdims=True)
    assert (np.abs(found - rows) <= 1e-3 * largest).all() and not part.missing
