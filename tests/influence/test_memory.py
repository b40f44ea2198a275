"""Memory stays within the budget, and more of it is used where it is given."""

import subprocess
import sys
from pathlib import Path

from retrac.influence.config import parse_bytes


def peak(tmp_path: Path, budget: str) -> int:
    told = subprocess.run(
        [sys.executable, Path(__file__).with_name("peak_memory.py"), tmp_path / budget, budget],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(told.stdout)


def test_peak_memory_is_within_the_budget(tmp_path: Path) -> None:
    """4.4 million parameters: the 32 directions of 16 queries alone would take 540 MB."""
    assert peak(tmp_path, "450MB") < parse_bytes("450MB") < 540e6 < peak(tmp_path, "4GB")
