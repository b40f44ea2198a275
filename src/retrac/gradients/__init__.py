"""Per-sample gradients of any `nn.Module`; knows nothing of diffusion.

`dots_and_norms` is the fast way, `oracle.dots_and_norms` the slow one to check it with.
"""

from retrac.gradients import oracle
from retrac.gradients.contract import dots_and_norms, grouped_gradients, squared_norms
from retrac.gradients.coverage import CoverageError
from retrac.gradients.layout import Directions, Layout

__all__ = [
    "CoverageError",
    "Directions",
    "Layout",
    "dots_and_norms",
    "grouped_gradients",
    "oracle",
    "squared_norms",
]
