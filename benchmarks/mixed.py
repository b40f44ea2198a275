"""Queries of two kinds."""

import numpy as np

from retrac.influence.queries import Queries, open_queries
from retrac.training.run import Run


def mixed_queries(run: Run, count: int) -> Queries:
    """So many training samples, then as many generated images."""
    parts = [open_queries(run, f"{kind}:{count}", 0) for kind in ("train", "generated")]
    return Queries(
        "mixed",
        np.concatenate([part.images for part in parts]),
        sum((part.ids for part in parts), ()),
        sum((part.labels for part in parts), ()),
    )
