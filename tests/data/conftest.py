"""No test here reaches the network."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from .local_copies import noise, save_image


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    cache = tmp_path_factory.mktemp("hub-cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    datasets.disable_progress_bars()


@pytest.fixture
def broken_png() -> Callable[[Path], None]:
    """Write a PNG of which the second half is missing."""

    def write(path: Path) -> None:
        save_image(path, noise(1, 1, 32, 32)[0])
        path.write_bytes(path.read_bytes()[:400])

    return write
