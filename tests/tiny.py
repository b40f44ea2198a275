"""The smallest training that has everything: warm-up, clipping, flips, an average, odd batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.torch import load_file
from torch import Tensor

from retrac.data.config import DatasetConfig
from retrac.diffusion.config import ModelConfig, ObjectiveConfig
from retrac.training.config import OptimizerConfig, TrainConfig

TINY = TrainConfig(
    data=DatasetConfig(dataset="digits", resolution=8, limit=24),
    model=ModelConfig(channels=(8, 16), layers_per_block=1, attention_levels=(), norm_groups=4),
    objective=ObjectiveConfig(timesteps=50),
    optimisation=OptimizerConfig(learning_rate=3e-3, warmup_steps=4, max_grad_norm=1.0),
    epochs=6,
    checkpoint_every=2,
    batch_size=10,  # 10, 10, 4
    flip=True,
    ema_decay=0.9,
    sample_count=2,
    sample_steps=2,
)

PUBLISHED = ("tracin", "retrac")
"""The methods of Xie et al. 2024."""


def tiny(**changes: Any) -> TrainConfig:
    """TINY with other settings; those of a part go by their own names (`optimizer="sgd"`)."""
    own = {name: changes.pop(name) for name in ("data", "model", "objective") if name in changes}
    return replace(TINY, **own).with_preset(changes)


def weights(folder: Path) -> dict[str, Tensor]:
    """The trained weights in a checkpoint folder."""
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def table(run: Path) -> dict[str, np.ndarray]:
    """The columns of `steps.parquet`."""
    return {
        name: np.array(column)
        for name, column in pq.read_table(run / "steps.parquet").to_pydict().items()
    }
