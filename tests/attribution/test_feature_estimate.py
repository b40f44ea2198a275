"""What scores by features are said to need, against what they write and what is left of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrac.attribution import costs, feature_estimate
from retrac.attribution.config import AttributeConfig, FeatureConfig
from retrac.attribution.engine import Engine
from retrac.attribution.feature_estimate import estimate_features
from retrac.attribution.feature_work import FeatureWork
from retrac.attribution.parts import Parts
from retrac.attribution.queries import training_samples
from retrac.estimate import folder_bytes
from retrac.training.run import Run

METHODS = ("kernel-retrac",)


@pytest.fixture
def work(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> FeatureWork:
    """Of three queries; whatever is measured takes a second."""
    monkeypatch.setattr(costs, "PASSES", 0)
    monkeypatch.setattr(feature_estimate, "seconds_of", lambda probe: 1.0)
    monkeypatch.setattr(feature_estimate, "clocked", lambda make: (0.0, make()))
    config = AttributeConfig(METHODS, features=FeatureConfig("medium", layer_numbers=16))
    (found,) = Engine.of(tiny_run, config).works(training_samples(tiny_run, "", [0, 5, 9]))
    return found


def test_only_what_is_left_is_counted(work: FeatureWork, tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts", {})
    whole = estimate_features(work, parts.names)
    half = replace(work, source=replace(work.source, timesteps=work.source.timesteps[:8]))
    half.do(parts)
    left = estimate_features(work, parts.names)
    assert whole is not None and left is not None
    assert left.seconds == pytest.approx(whole.seconds / 2)
    work.do(parts)
    assert estimate_features(work, parts.names) is None


def test_the_disk_holds_all_pieces_of_a_bin_and_the_scores(
    work: FeatureWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, held = Parts(tmp_path / "parts", {}), [0]
    put = parts.put

    def noted(name: str, arrays: dict[str, np.ndarray]) -> None:
        put(name, arrays)
        held.append(folder_bytes(tmp_path))

    monkeypatch.setattr(parts, "put", noted)
    work.do(parts)
    told = estimate_features(work, frozenset())
    assert told is not None and 0.9 * max(held) < told.disk < 1.5 * max(held)


def test_memory_grows_with_samples_and_numbers(work: FeatureWork) -> None:
    told, doubled = (
        feature_estimate._memory(replace(work, lots=lots))
        for lots in (work.lots, [replace(work.lots[0], widths=(2 * work.lots[0].size,))])
    )
    assert doubled == 2 * told
    parts, numbers = work.source.parts, work.lots[0].size
    assert told > 4 * len(work.measurements) * parts * work.run.size * numbers
