"""What all rooms share: one thread, which is fastest for tiny networks, and one tiny run."""

import gc
import os
import shutil
from pathlib import Path

# Of processes that tests start, and of libraries that read them when they are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
import torch

from retrac.training.loop import train
from retrac.training.run import Run
from tiny import TINY, tiny

torch.set_num_threads(1)
hypothesis.settings.register_profile("patient", deadline=None)  # no test depends on timing
hypothesis.settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of collections of garbage: every loading of a model makes
    one, which would look at all modules and tests again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 24 samples and 6 epochs, with a checkpoint after every second. Not to be changed."""
    return train(TINY, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def brief_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 24 samples and 2 epochs, for what trains models again. Not to be changed."""
    return train(tiny(epochs=2), tmp_path_factory.mktemp("runs") / "brief")


@pytest.fixture
def own_run(tiny_run: Run, tmp_path: Path) -> Path:
    """The folder of a copy of the tiny run, for a test to damage."""
    return Path(shutil.copytree(tiny_run.path, tmp_path / "own"))
