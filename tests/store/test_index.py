"""What an index says of itself, and with what it goes on."""

from pathlib import Path
from typing import Any

import pytest

from retrac.errors import RetracError
from retrac.files import read_json, write_json
from retrac.gradients.allocation import Sides, allocate
from retrac.gradients.sketch_layout import SketchLayout
from retrac.store.index import FORMAT, Index
from retrac.store.table import Column

SIDES = {"one.weight": Sides(9, 4, 8), "one.bias": Sides(1, 8, 1), "two.weight": Sides(1, 8, 3)}
LAYOUT = SketchLayout.of(7, SIDES, allocate(SIDES, 60))


def settings(**features: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "replayed", "trained": "x", "parameters": ".*", "features": features}


def feature(**changes: Any) -> dict[str, Any]:
    return {"measurements": ["loss"], "weights": ["one"], "sketch_size": 60, **changes}


def saved(path: Path, **features: dict[str, Any]) -> Index:
    index = Index.planned(path, settings(**features)).with_sketches(lambda: LAYOUT)
    index.save()
    return index


def test_what_is_saved_is_opened(tmp_path):
    index = saved(tmp_path / "index", intervals=feature(), timesteps=feature(bins=8))
    opened = Index.open(index.path)
    assert opened == index
    assert list(opened.features) == ["intervals", "timesteps"]
    stored = opened.features["timesteps"]
    assert stored.layout == LAYOUT and stored.config["bins"] == 8 and stored.weights == ["one"]
    assert stored.layout.size == sum(part.stop - part.start for part in stored.layout.layers)
    assert len(stored.layout.layers) == 2  # weight and bias together
    assert stored.table(50, "one").path == index.path / "epoch-0050" / "timesteps-one"


def test_a_feature_is_added_and_leaves_the_others_alone(tmp_path):
    first = saved(tmp_path / "index", intervals=feature())
    index = Index.resumed(first.path, settings(timesteps=feature(bins=8)))
    assert index is not None
    assert index.config["features"]["intervals"] == first.config["features"]["intervals"]
    assert Index.open(first.path) == first  # nothing is written
    other = index.with_sketches(lambda: LAYOUT)
    assert other.features["timesteps"].layout == LAYOUT


def test_weights_are_added(tmp_path):
    first = saved(tmp_path / "index", intervals=feature())
    index = Index.resumed(first.path, settings(intervals=feature(weights=["inverse_norm"])))
    assert index is not None
    expected = {**first.config["features"]["intervals"], "weights": ["one", "inverse_norm"]}
    assert index.config["features"]["intervals"] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sketch_size": 70}, "sketch_size was 60, now 70"),
        ({"checkpoints": [4, 6]}, r"checkpoints was \[2, 4\], now \[4, 6\]"),
        ({"checkpoints": [2]}, r"checkpoints was \[2, 4\], now \[2\]"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    before = feature(checkpoints=[2, 4])
    first = saved(tmp_path / "index", intervals=before)
    with pytest.raises(RetracError, match=message):
        Index.resumed(first.path, settings(intervals={**before, **changes}))
    longer = {**before, "checkpoints": [2, 4, 6]}
    assert Index.resumed(first.path, settings(intervals=longer)) is not None
    with pytest.raises(RetracError, match="is of another training"):
        Index.resumed(first.path, {**settings(intervals=before), "trained": "y"})


def test_what_is_taken_at_one_checkpoint_begins_anew_at_another(tmp_path):
    first = saved(tmp_path / "index", timesteps=feature(at=4, draws="medium", bins=16))
    later = feature(at=6, draws="visits", bins=8)
    index = Index.resumed(first.path, settings(timesteps=later))
    assert index is not None and index.config["features"]["timesteps"] == later
    with pytest.raises(RetracError, match="bins was 16, now 8"):
        Index.resumed(first.path, settings(timesteps={**later, "at": 4, "draws": "medium"}))
    for epoch in (4, 6):  # the second is left over from something that was stopped
        table = first.features["timesteps"].table(epoch, "one")
        table.create({"count": Column((2,), "int64")}, 3)
    other = first.path / "epoch-0004" / "intervals-one"
    other.mkdir()
    first.save()
    assert first.features["timesteps"].begun() == [4, 6]
    index.save()
    assert index.features["timesteps"].begun() == [] and other.is_dir()


@pytest.mark.parametrize("number", [1, 3, FORMAT + 1, None])
def test_another_format_is_refused(tmp_path, number):
    index = saved(tmp_path / "index", intervals=feature())
    write_json(index.path / "index.json", {**index.config, "format": number})
    for opening in (Index.open, lambda path: Index.resumed(path, settings(intervals=feature()))):
        with pytest.raises(
            RetracError, match=r"made by another version of .*make it again"
        ) as told:
            opening(index.path)
        assert "\n" not in str(told.value)


def test_damage_is_told_in_one_line(tmp_path):
    index = saved(tmp_path / "index", intervals=feature())
    path = index.path / "index.json"
    config = read_json(path)
    del config["features"]
    write_json(path, config)
    with pytest.raises(RetracError, match="is damaged: it lacks 'features'"):
        Index.open(index.path)
    path.write_text("{")
    with pytest.raises(RetracError, match="cannot be read as JSON"):
        Index.open(index.path)
    with pytest.raises(RetracError, match="no index at"):
        Index.open(tmp_path / "nowhere")
