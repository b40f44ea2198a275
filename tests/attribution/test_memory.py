"""Memory stays within the budget, and more of it is used where it is given."""

import subprocess
import sys
from pathlib import Path

import pytest

from retrac.attribution.config import AttributeConfig, ComputeConfig, parse_bytes
from retrac.attribution.memory import USABLE
from retrac.attribution.scorer import Scorer
from retrac.errors import RetracError
from retrac.gradients.memory import model_bytes, weight_bytes
from retrac.gradients.routes import TEMPORARY_BYTES
from retrac.training.run import Run


def peak(tmp_path: Path, budget: str) -> int:
    told = subprocess.run(
        [sys.executable, Path(__file__).with_name("peak_memory.py"), tmp_path / budget, budget],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(told.stdout)


@pytest.mark.slow
def test_peak_memory_is_within_the_budget(tmp_path: Path) -> None:
    """4.4 million parameters: the 32 directions of 16 queries alone would take 540 MB."""
    assert peak(tmp_path, "450MB") < parse_bytes("450MB") < 540e6 < peak(tmp_path, "4GB")


def test_parameters_that_do_not_count_are_in_memory_all_the_same(tiny_run: Run) -> None:
    scorer = Scorer.of(tiny_run, AttributeConfig(compute=ComputeConfig("100MB")))
    few = Scorer.of(tiny_run, AttributeConfig(parameters="conv_out", compute=ComputeConfig("1KB")))
    model, restricted = (one.model(one.replays[-1]) for one in (scorer, few))
    assert weight_bytes(restricted) < model_bytes(restricted) == weight_bytes(model)
    with pytest.raises(RetracError, match="at least") as refused:
        few.split(restricted, 1)
    needed = int(str(refused.value).split("at least ")[1].split("MB")[0]) * 2**20
    assert needed > (TEMPORARY_BYTES + model_bytes(model)) / USABLE - 2**20
