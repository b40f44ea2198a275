"""What tests of training share."""

from collections.abc import Callable
from typing import Any

import pytest

from retrac.training import loop


@pytest.fixture
def during_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Do something in the middle of a step of the next training."""

    def plan(number: int, act: Callable[[], None]) -> None:
        inputs, step = loop.training_inputs, iter(range(10**6))

        def acting(*arguments: Any) -> Any:
            if next(step) == number:
                act()
            return inputs(*arguments)

        monkeypatch.setattr(loop, "training_inputs", acting)

    return plan
