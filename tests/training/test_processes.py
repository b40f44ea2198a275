"""Two processes train as one does: the same events and, to rounding, the same weights."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from processes import LAUNCH
from retrac.store.index import Index
from retrac.training.config import RecordConfig
from retrac.training.loop import train
from retrac.training.recording import RECORDED
from tiny import TINY, table, tiny, weights


@pytest.mark.slow
def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    """21 samples make batches of 10, 10 and 1: one process gets nothing of the last."""
    config = tiny(data=replace(TINY.data, limit=21), epochs=2, sample_count=0)
    alone = train(config, tmp_path / "alone", RecordConfig(300))
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(config.to_json()))
    launched = subprocess.run(
        [*LAUNCH, str(Path(__file__).with_name("launched.py")), str(settings), tmp_path / "two"],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr

    given = [json.loads((tmp_path / f"two-{rank}.json").read_text()) for rank in range(2)]
    expected = [(epoch, batch) for epoch in range(2) for batch in alone.ledger.batches(epoch, 10)]
    for (epoch, batch), first, second in zip(expected, *given, strict=True):
        assert first[0] == second[0] == epoch
        if len(batch) == 1:  # the second takes part without counting
            assert first[1] == second[1] == batch.tolist()
        else:
            assert len(first[1]) == len(second[1]) == 5
            assert first[1] + second[1] == batch.tolist()

    steps, by_one = table(tmp_path / "two"), table(alone.path)
    for name in ("step", "epoch", "batch_size", "learning_rate"):
        assert np.array_equal(steps[name], by_one[name])
    assert np.allclose(steps["loss"], by_one["loss"], rtol=1e-5)
    [checkpoint] = (tmp_path / "two/checkpoints").iterdir()
    for folder in ("", "ema"):
        reached = weights(checkpoint / folder)
        for name, weight in weights(alone.checkpoints[-1].path / folder).items():
            assert np.allclose(reached[name], weight, atol=2e-5), name
    for name, feature in Index.open(alone.path / RECORDED).features.items():
        other = Index.open(tmp_path / "two" / RECORDED).features[name]
        one, two = (each.table(2, "one").read("sums") for each in (feature, other))
        assert np.allclose(one, two, atol=1e-2 * np.abs(one).max()), name
