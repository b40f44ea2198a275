"""Which training images made a diffusion model produce this image, and how sure can we be?

run = retrac.Run.open("runs/digits")
result = retrac.attribute(run, "generated:8", methods=("tracin", "retrac"))
result.proponents(query=0, method="retrac", k=8)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrac.attribution.asked import Queries
    from retrac.attribution.attribute import attribute
    from retrac.attribution.attribution import Attribution
    from retrac.attribution.config import AttributeConfig, ComputeConfig, PlanConfig, QueryConfig
    from retrac.attribution.methods import Draws, Method, methods
    from retrac.attribution.metrics import DampedKernel, Freedom, Metric
    from retrac.attribution.norms import norms
    from retrac.attribution.queries import open_queries
    from retrac.attribution.self_influence import self_influence
    from retrac.attribution.until import Until, attribute_until
    from retrac.data.config import DatasetConfig
    from retrac.diffusion.density import flow_moments
    from retrac.diffusion.measurements import Predicted
    from retrac.diffusion.shown import Seen
    from retrac.errors import RetracError
    from retrac.report.page import write_report
    from retrac.training.adopted import adopt
    from retrac.training.config import (
        AdoptConfig,
        ImportConfig,
        RecordConfig,
        ReplayConfig,
        TrainConfig,
    )
    from retrac.training.generation import generate_images
    from retrac.training.imported import import_published
    from retrac.training.ledger import Events, Ledger
    from retrac.training.loop import train
    from retrac.training.own import adopt_module
    from retrac.training.replaying import replay
    from retrac.training.run import Run

_HOMES = {
    "AdoptConfig": "retrac.training.config",
    "AttributeConfig": "retrac.attribution.config",
    "Attribution": "retrac.attribution.attribution",
    "ComputeConfig": "retrac.attribution.config",
    "DampedKernel": "retrac.attribution.metrics",
    "DatasetConfig": "retrac.data.config",
    "Draws": "retrac.attribution.methods",
    "Events": "retrac.training.ledger",
    "Freedom": "retrac.attribution.metrics",
    "ImportConfig": "retrac.training.config",
    "Ledger": "retrac.training.ledger",
    "Method": "retrac.attribution.methods",
    "Metric": "retrac.attribution.metrics",
    "PlanConfig": "retrac.attribution.config",
    "Predicted": "retrac.diffusion.measurements",
    "Queries": "retrac.attribution.asked",
    "QueryConfig": "retrac.attribution.config",
    "RecordConfig": "retrac.training.config",
    "ReplayConfig": "retrac.training.config",
    "RetracError": "retrac.errors",
    "Run": "retrac.training.run",
    "Seen": "retrac.diffusion.shown",
    "TrainConfig": "retrac.training.config",
    "Until": "retrac.attribution.until",
    "adopt": "retrac.training.adopted",
    "adopt_module": "retrac.training.own",
    "attribute": "retrac.attribution.attribute",
    "attribute_until": "retrac.attribution.until",
    "flow_moments": "retrac.diffusion.density",
    "generate_images": "retrac.training.generation",
    "import_published": "retrac.training.imported",
    "methods": "retrac.attribution.methods",
    "norms": "retrac.attribution.norms",
    "open_queries": "retrac.attribution.queries",
    "replay": "retrac.training.replaying",
    "self_influence": "retrac.attribution.self_influence",
    "train": "retrac.training.loop",
    "write_report": "retrac.report.page",
}

__all__ = [
    "AdoptConfig",
    "AttributeConfig",
    "Attribution",
    "ComputeConfig",
    "DampedKernel",
    "DatasetConfig",
    "Draws",
    "Events",
    "Freedom",
    "ImportConfig",
    "Ledger",
    "Method",
    "Metric",
    "PlanConfig",
    "Predicted",
    "Queries",
    "QueryConfig",
    "RecordConfig",
    "ReplayConfig",
    "RetracError",
    "Run",
    "Seen",
    "TrainConfig",
    "Until",
    "adopt",
    "adopt_module",
    "attribute",
    "attribute_until",
    "flow_moments",
    "generate_images",
    "import_published",
    "methods",
    "norms",
    "open_queries",
    "replay",
    "self_influence",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch takes seconds to start."""
    if name not in _HOMES:
        raise AttributeError(f"module 'retrac' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
