"""Two processes train as one does: the same events and, to rounding, the same weights."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrac.training.loop import train
from tiny import TINY, table, tiny, weights

ARGUMENTS = """
    --dataset digits --resolution 8 --limit 21 --channels 8 16 --layers-per-block 1
    --attention-levels --norm-groups 4 --timesteps 50 --learning-rate 3e-3 --warmup-steps 4
    --max-grad-norm 1 --epochs 2 --checkpoint-every 2 --batch-size 10 --flip --ema-decay 0.9
    --sample-count 0
"""
"""As below; 21 samples make batches of 10, 10 and 1: one process gets nothing of the last."""


def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    config = tiny(
        data=replace(TINY.data, limit=21),
        epochs=2,
        sample_count=0,
    )
    alone = train(config, tmp_path / "alone")
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--cpu"),
            *("--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"),
            *("--mixed_precision", "no", "--dynamo_backend", "no", "-m", "retrac"),
            *("train", "--output", str(tmp_path / "two"), *ARGUMENTS.split()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    steps, expected = table(tmp_path / "two"), table(alone.path)
    assert len(steps["loss"]) == 6 and steps["batch_size"].tolist() == [10, 10, 1] * 2
    for name in ("step", "epoch", "batch_size", "learning_rate"):
        assert np.array_equal(steps[name], expected[name])
    assert np.allclose(steps["loss"], expected["loss"], rtol=1e-5)
    reached = weights(tmp_path / "two/checkpoints/epoch-0002")
    for name, weight in weights(alone.checkpoints[-1].path).items():
        assert np.allclose(reached[name], weight, atol=2e-5), name
