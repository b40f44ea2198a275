from collections.abc import Iterator

import pytest
import torch

from retrac.gradients import routes


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """The same numbers every time, in double precision, in which agreement means more."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[8 * 2**20, 300], ids=["whole", "sliced"])
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the batch in one piece, once in slices of a sample or two."""
    monkeypatch.setattr(routes, "TILE_BYTES", request.param)


@pytest.fixture(params=[0, 100], ids=["by row", "at once"])
def bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches row by row of the kernel, and all at once."""
    monkeypatch.setattr("retrac.gradients.inputs.FEW", request.param)
