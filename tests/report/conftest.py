"""A small attribution made by hand, without a model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr

from retrac.attribution.attribution import Attribution

MakeAttribution = Callable[..., Attribution]


def build(
    queries: int = 4,
    samples: int = 40,
    methods: Sequence[str] = ("tracin", "retrac"),
    checkpoints: Sequence[int] = (5, 10),
    visits: int = 1,
    channels: int = 1,
    side: int = 8,
    query_ids: Sequence[str] | None = None,
    query_labels: Sequence[str] | None = None,
    sample_ids: Sequence[str] | None = None,
    sample_labels: Sequence[str] | None = None,
    scores: np.ndarray | None = None,
    shown: Sequence[int] | None = None,
    config: dict[str, Any] | None = None,
) -> Attribution:
    """Random scores `[method, checkpoint, query, sample]` unless given; all samples stored."""
    rng = np.random.default_rng(0)
    times = len(checkpoints)
    if scores is None:
        scores = rng.normal(scale=1e-4, size=(len(methods), times, queries, samples))
    shown = list(range(samples)) if shown is None else list(shown)
    timesteps = rng.integers(0, 1000, (times, samples, visits))
    plan = np.array([1, 250, 500, 750, 999])
    images = rng.integers(0, 256, (queries + samples, channels, side, side)).astype(np.uint8)
    dataset = xr.Dataset(
        {
            "score": (("method", "checkpoint", "query", "sample"), scores.astype(np.float32)),
            "train_weight": (("checkpoint", "sample"), np.full((times, samples), 1e-3)),
            "train_timestep": (("checkpoint", "sample", "visit"), timesteps),
            "train_norm": (("checkpoint", "sample", "visit"), 3 * np.exp(-timesteps / 400)),
            "query_norm": (
                ("checkpoint", "query", "timestep"),
                np.broadcast_to(3 * np.exp(-plan / 400), (times, queries, len(plan))),
            ),
            "query_image": (("query", "channel", "row", "column"), images[:queries]),
            "sample_image": (("shown", "channel", "row", "column"), images[queries:][shown]),
        },
        coords={
            "method": list(methods),
            "checkpoint": list(checkpoints),
            "query_id": ("query", list(query_ids or (f"generated-{i}" for i in range(queries)))),
            "query_label": ("query", list(query_labels or [""] * queries)),
            "sample_id": ("sample", list(sample_ids or (f"digits/{i}" for i in range(samples)))),
            "sample_label": ("sample", list(sample_labels or (str(i % 3) for i in range(samples)))),
            "timestep": plan,
            "shown": shown,
        },
    )
    run = {"dataset": "digits", "learning_rate": 1e-3, "ema": None}
    return Attribution(dataset, config or {"run": run, "plan": {"timesteps": 5, "noises": 4}})


@pytest.fixture
def make_attribution() -> MakeAttribution:
    """Return the function that builds an attribution."""
    return build
