"""Which training images made a diffusion model produce this image, and how sure can we be?

run = retrac.Run.open("runs/digits")
result = retrac.attribute(run, "generated:8", methods=("tracin", "retrac"))
result.proponents(query=0, method="retrac", k=8)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrac.errors import RetracError
    from retrac.influence.attribute import attribute
    from retrac.influence.attribution import Attribution
    from retrac.influence.queries import Queries, open_queries
    from retrac.training.config import TrainConfig
    from retrac.training.ledger import Events, Ledger
    from retrac.training.loop import train
    from retrac.training.run import Run

_HOMES = {
    "Attribution": "retrac.influence.attribution",
    "Events": "retrac.training.ledger",
    "Ledger": "retrac.training.ledger",
    "Queries": "retrac.influence.queries",
    "RetracError": "retrac.errors",
    "Run": "retrac.training.run",
    "TrainConfig": "retrac.training.config",
    "attribute": "retrac.influence.attribute",
    "open_queries": "retrac.influence.queries",
    "train": "retrac.training.loop",
}

__all__ = [
    "Attribution",
    "Events",
    "Ledger",
    "Queries",
    "RetracError",
    "Run",
    "TrainConfig",
    "attribute",
    "open_queries",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch takes seconds to start."""
    if name not in _HOMES:
        raise AttributeError(f"module 'retrac' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
