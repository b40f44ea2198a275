"""Per-sample gradients of any `nn.Module`; knows nothing of diffusion.

`dots_and_norms` is the fast way, `oracle.dots_and_norms` the slow one to check it with.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrac.gradients import oracle
    from retrac.gradients.contract import (
        dots_and_norms,
        dots_by_layer,
        grouped_gradients,
        squared_norms,
    )
    from retrac.gradients.coverage import CoverageError
    from retrac.gradients.layers import LayerGroups
    from retrac.gradients.layout import Directions, Layout

_HOMES = {
    "CoverageError": "coverage",
    "Directions": "layout",
    "LayerGroups": "layers",
    "Layout": "layout",
    "dots_and_norms": "contract",
    "dots_by_layer": "contract",
    "grouped_gradients": "contract",
    "squared_norms": "contract",
}

__all__ = [
    "CoverageError",
    "Directions",
    "LayerGroups",
    "Layout",
    "dots_and_norms",
    "dots_by_layer",
    "grouped_gradients",
    "oracle",
    "squared_norms",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: weights are needed without torch."""
    if name == "oracle":
        return import_module("retrac.gradients.oracle")
    if name not in _HOMES:
        raise AttributeError(f"module 'retrac.gradients' has no attribute {name!r}")
    return getattr(import_module(f"retrac.gradients.{_HOMES[name]}"), name)
