"""An index answers as the exact scores do, as far as its sketches reach."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from retrac.attribution import indexed, sample_scores, sketched
from retrac.attribution.attribute import attribute
from retrac.attribution.build_index import build_index
from retrac.attribution.config import ComputeConfig, FeatureConfig, IndexConfig, PlanConfig
from retrac.attribution.estimate import estimate_index
from retrac.errors import RetracError
from retrac.store.index import Index
from retrac.store.intervals import INTERVALS, IntervalRows, StoredInterval
from retrac.training.config import RecordConfig
from retrac.training.loop import train
from retrac.training.run import Run
from tiny import PUBLISHED, tiny

EVERYTHING = 10**9
PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)
SMALL = IndexConfig(PUBLISHED, sketch_size=300)


def rows_of(index: Index, epoch: int) -> IntervalRows:
    """What is there of all samples at a checkpoint."""
    feature = index.features[INTERVALS]
    return StoredInterval(feature, epoch).read(slice(0, 24), feature.weights)


@pytest.fixture
def run(own_run: Path) -> Run:
    return Run.open(own_run)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many gradients each pass sketched."""
    sizes: list[int] = []
    sketches = sketched.sketches

    def watched(model, per_sample_losses, projection):
        rows = sketches(model, per_sample_losses, projection)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(sketched, "sketches", watched)
    return sizes


def written(index: Index) -> dict[Path, int]:
    """When each file of each checkpoint was."""
    return {path: path.stat().st_mtime_ns for path in index.path.glob("epoch-*/**/*")}


def dying(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Stop before the chunk after so many."""
    write: Callable[..., None] = StoredInterval.write
    left = iter(range(chunks))

    def stopped(self: StoredInterval, samples: slice, rows: IntervalRows) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(self, samples, rows)

    monkeypatch.setattr(StoredInterval, "write", stopped)


def test_with_room_for_everything_scores_are_the_exact_ones(run):
    build_index(run, IndexConfig(PUBLISHED, replay="all", sketch_size=EVERYTHING))
    by_index = attribute(run, "train:3", PUBLISHED, plan=PLAN, index=True)
    exact = attribute(run, "train:3", PUBLISHED, plan=PLAN, replay="all")
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
    index = build_index(run, IndexConfig(PUBLISHED, replay="all", sketch_size=2000))
    assert index.features[INTERVALS].layout.size < 3000
    by_index = attribute(run, "train:4", PUBLISHED, plan=PLAN, index=True)
    exact = attribute(run, "train:4", PUBLISHED, plan=PLAN, replay="all")
    for method in exact.methods:
        one, two = (result.scores_of(method).values for result in (by_index, exact))
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.95


def test_best_candidates_are_scored_exactly(run, tmp_path):
    build_index(run, IndexConfig(PUBLISHED, sketch_size=500))
    best = attribute(
        run, "train:2", PUBLISHED, plan=PLAN, index=True, exact_top=3, output=tmp_path / "result"
    )
    exact = attribute(run, "train:2", PUBLISHED, plan=PLAN)
    chosen = best.dataset["exact"].values
    assert 3 <= chosen.sum() <= 12
    np.testing.assert_allclose(
        best.contributions.values[..., chosen],
        exact.contributions.values[..., chosen],
        rtol=1e-3,
        atol=1e-9,
    )
    everything = attribute(run, "train:2", PUBLISHED, plan=PLAN, index=True, exact_top=24)
    np.testing.assert_allclose(everything.scores, exact.scores, rtol=1e-3, atol=1e-9)


def test_an_interrupted_index_goes_on_with_the_same_result(run, monkeypatch):
    monkeypatch.setattr(sample_scores, "CHUNK", 10)
    whole = build_index(run, SMALL)
    expected = {epoch: rows_of(whole, epoch) for epoch in (2, 4, 6)}
    shutil.rmtree(whole.path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        dying(patched, 4)
        build_index(run, SMALL)
    with pytest.raises(RetracError, match="is not whole"):
        attribute(run, "train:1", PUBLISHED, plan=PLAN, index=True)
    again = build_index(run, SMALL)
    for epoch, rows in expected.items():
        for weight, sums in rows_of(again, epoch).sums.items():
            assert np.array_equal(sums, rows.sums[weight])


@pytest.mark.parametrize("stopped", [False, True])
def test_an_index_grows_with_its_run(tmp_path, monkeypatch, stopped):
    config = IndexConfig(PUBLISHED, replay="all", sketch_size=2000)
    run = train(tiny(epochs=4), tmp_path / "run")
    monkeypatch.setattr(sample_scores, "CHUNK", 10)
    first = build_index(run, config)
    before = written(first)
    run = train(tiny(epochs=6), run.path)
    monkeypatch.setattr("retrac.attribution.costs.PASSES", 0)
    assert estimate_index(run, config)  # which only looks
    assert Index.open(first.path).config == first.config and written(first) == before
    if stopped:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            dying(patched, 2)
            build_index(run, config)
        with pytest.raises(RetracError, match="is not whole: the checkpoint of epoch 6"):
            attribute(run, "train:1", PUBLISHED, plan=PLAN, index=True)
    index = build_index(run, config)
    assert index.config == Index.open(index.path).config
    grown = {**first.features[INTERVALS].config, "checkpoints": [2, 4, 6]}
    assert index.features[INTERVALS].config == grown
    assert index.features[INTERVALS].begun() == [2, 4, 6]
    after = written(index)
    assert before.items() < after.items()
    assert {path.relative_to(index.path).parts[0] for path in after.keys() - before} == {
        "epoch-0006"
    }
    by_index = attribute(run, "train:4", PUBLISHED, plan=PLAN, index=True)
    exact = attribute(run, "train:4", PUBLISHED, plan=PLAN, replay="all")
    for method in exact.methods:
        one, two = (result.scores_of(method).values for result in (by_index, exact))
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("now", [(2, 4), (4, 6), (2, 4, 6)])
def test_an_index_does_not_grow_where_intervals_would_change(run, now):
    build_index(run, IndexConfig(PUBLISHED, sketch_size=300, checkpoints=(2, 6)))
    with pytest.raises(RetracError, match=r"checkpoints was \[2, 6\], now"):
        build_index(run, IndexConfig(PUBLISHED, sketch_size=300, checkpoints=now))


def test_memory_does_not_change_an_index(run, monkeypatch, passes):
    whole = build_index(run, SMALL)
    assert passes == [24] * 3
    passes.clear()
    rows = rows_of(whole, 2).sums["one"]
    shutil.rmtree(whole.path)
    monkeypatch.setattr("retrac.attribution.memory.TEMPORARY_BYTES", 2**18)
    small = build_index(run, replace(SMALL, compute=ComputeConfig(memory_budget="2MB")))
    assert sum(passes) == 3 * 24 and max(passes) <= 12
    again = rows_of(small, 2).sums["one"]
    np.testing.assert_allclose(again, rows, atol=2e-3 * np.abs(rows).max())


def test_answers_from_a_recording(tmp_path):
    run = train(tiny(epochs=4), tmp_path / "run", record=RecordConfig(EVERYTHING))
    result = attribute(run, "train:2", PUBLISHED, plan=PLAN, recorded=True)
    assert list(result.dataset["checkpoint"].values) == [2, 4]
    assert result.config["index"]["kind"] == "recorded"
    replayed = attribute(run, "train:2", PUBLISHED, plan=PLAN, replay="all")
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
        ({"index": True, "features": FeatureConfig("large")}, "--draws and .* do not go with"),
        ({"index": True, "exact_top": -1}, "--exact-top must be at least 0"),
    ],
)
def test_what_is_not_there_is_refused(tiny_run, options, message):
    with pytest.raises(RetracError, match=message):
        attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN, **options)


def test_other_settings_are_refused(run):
    build_index(run, IndexConfig(PUBLISHED, sketch_size=300, checkpoints=(2, 6)))
    other = IndexConfig(PUBLISHED, sketch_size=400, checkpoints=(2, 6))
    for refusing in (build_index, estimate_index):
        with pytest.raises(RetracError, match=r"sketch_size was 300, now 400"):
            refusing(run, other)
    with pytest.raises(RetracError, match="has --replay last, not all"):
        attribute(run, "train:1", PUBLISHED, plan=PLAN, index=True, replay="all")
    with pytest.raises(RetracError, match="has --parameters"):
        attribute(run, "train:1", PUBLISHED, plan=PLAN, index=True, parameters="conv")
    for order in ((2, 6), (6, 2)):
        result = attribute(run, "train:1", PUBLISHED, plan=PLAN, index=True, checkpoints=order)
        assert list(result.dataset["checkpoint"].values) == [2, 6]
    with pytest.raises(RetracError, match=r"has --checkpoints \[2, 6\], not \[6\]: .*none can be"):
        attribute(run, "train:1", PUBLISHED, plan=PLAN, index=True, checkpoints=(6,))
    with pytest.raises(RetracError, match="--sketch-size must be at least 1"):
        IndexConfig(PUBLISHED, sketch_size=0)


def test_an_index_of_another_training_is_refused(run, tmp_path):
    build_index(run, SMALL)
    other = train(tiny(seed=5), tmp_path / "other")
    shutil.copytree(run.path / "index", other.path / "index")
    with pytest.raises(RetracError, match="is of another training"):
        attribute(other, "train:1", PUBLISHED, plan=PLAN, index=True)


def test_a_recording_of_another_training_is_refused(tmp_path):
    """Though on the same data."""
    one = train(tiny(epochs=2, sample_count=0), tmp_path / "one", record=RecordConfig(300))
    other = train(tiny(epochs=2, sample_count=0, learning_rate=1e-3), tmp_path / "other")
    shutil.copytree(one.path / "recorded", other.path / "recorded")
    with pytest.raises(RetracError, match="recorded is of another training") as told:
        attribute(other, "train:1", PUBLISHED, plan=PLAN, recorded=True)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("place", ["open_array", "Array.__setitem__"])
def test_a_full_disk_is_told_in_one_line(run, monkeypatch, place):
    *owner, name = place.split(".")
    home = getattr(zarr, owner[0]) if owner else zarr
    works, full = getattr(home, name), False

    def fills(*given, **options):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return works(*given, **options)

    monkeypatch.setattr(home, name, fills)
    full = True
    with pytest.raises(RetracError, match=r"no space left to write .*epoch-0002") as told:
        build_index(run, SMALL)
    assert "\n" not in str(told.value)
    full = False
    assert build_index(run, SMALL).features[INTERVALS].begun() == [2, 4, 6]


@pytest.mark.parametrize(
    "name",
    [
        "intervals-one/sums",
        "intervals-inverse_norm/sums-scale",
        "intervals-visits/norm",
        "intervals-visits/timestep",
        "intervals-one/done",
    ],
)
def test_a_damaged_piece_is_told_in_one_line(run, name):
    index = build_index(run, SMALL)
    files = [path for path in index.path.glob(f"*/{name}.zarr/**/*") if path.is_file()]
    pieces = [path for path in files if not path.name.endswith(".json")]
    assert pieces
    for piece in pieces:
        piece.write_bytes(piece.read_bytes()[:5])
    with pytest.raises(RetracError, match=rf"{name}\.zarr is damaged .*make it again"):
        attribute(run, "train:1", PUBLISHED, plan=PLAN, index=True)


def test_interrupted_answers_go_on(run, tmp_path, monkeypatch):
    build_index(run, SMALL)
    whole = attribute(run, "train:2", PUBLISHED, plan=PLAN, index=True)
    asked: list[str] = []
    query_sketches = indexed.query_sketches

    def stop_at_the_second(*given):
        asked.append(given[8])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return query_sketches(*given)

    monkeypatch.setattr(indexed, "query_sketches", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        attribute(run, "train:2", PUBLISHED, plan=PLAN, index=True, output=tmp_path / "result")
    again = attribute(run, "train:2", PUBLISHED, plan=PLAN, index=True, output=tmp_path / "result")
    names = [checkpoint.path.name for checkpoint in run.checkpoints]
    assert asked == [*names[:2], *names[1:]]
    assert np.array_equal(again.contributions.values, whole.contributions.values)
    assert not list(tmp_path.glob("*.parts"))


def test_methods_add_what_they_need_and_leave_the_rest_alone(run):
    first = build_index(run, replace(SMALL, methods=("tracin",)))
    before = written(first)
    tracin = attribute(run, "train:2", ("tracin",), plan=PLAN, index=True)
    with pytest.raises(RetracError, match=r"does not hold what 'retrac' needs: .* --index"):
        attribute(run, "train:2", PUBLISHED, plan=PLAN, index=True)
    both = build_index(run, replace(SMALL, methods=("retrac",)))
    after = written(both)
    assert before.items() < after.items()
    added = {path.relative_to(both.path).parts[1] for path in after.keys() - before}
    assert added == {"intervals-inverse_norm"}
    assert both.features[INTERVALS].weights == ["one", "inverse_norm"]
    result = attribute(run, "train:2", PUBLISHED, plan=PLAN, index=True)
    np.testing.assert_array_equal(result.scores_of("tracin"), tracin.scores_of("tracin"))
    shutil.rmtree(both.path)
    whole = build_index(run, SMALL)
    again = attribute(run, "train:2", PUBLISHED, plan=PLAN, index=True)
    np.testing.assert_array_equal(result.scores, again.scores)
    assert whole.features[INTERVALS].layout == both.features[INTERVALS].layout


@pytest.mark.parametrize("method", ["adam", "ekfac", "trak"])
def test_methods_that_need_more_are_refused(run, method):
    with pytest.raises(RetracError, match=f"{method} needs more of the samples than an index"):
        build_index(run, replace(SMALL, methods=(method,)))
    build_index(run, SMALL)
    with pytest.raises(RetracError, match=f"does not hold what '{method}' needs"):
        attribute(run, "train:1", (method,), plan=PLAN, index=True)


def test_without_a_choice_those_are_scored_that_it_answers(run):
    build_index(run, SMALL)
    result = attribute(run, "train:1", plan=PLAN, index=True)
    assert list(result.methods) == ["retrac", "tracin"]
