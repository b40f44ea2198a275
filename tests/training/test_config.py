"""Settings: as JSON and back, presets, and numbers that make no sense."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrac.data.config import DatasetConfig
from retrac.data.named import NAMED
from retrac.diffusion.config import ModelConfig, ObjectiveConfig
from retrac.errors import RetracError
from retrac.training.config import OptimizerConfig, TrainConfig
from tiny import TINY, tiny

counts = st.integers(1, 10**9)
sizes = st.integers(0, 10**9)
rates = st.floats(0, 1e6, exclude_min=True)
paths = st.none() | st.sampled_from([Path("a/b"), Path("/c d/é"), Path("..")])

configs = st.builds(
    TrainConfig,
    data=st.builds(DatasetConfig, dataset=st.text(), dataset_path=paths, limit=st.none() | counts),
    model=st.builds(
        ModelConfig,
        channels=st.lists(counts, min_size=1).map(tuple),
        attention_levels=st.lists(sizes).map(tuple),
        time_scale_shift=st.sampled_from(["default", "scale_shift"]),
    ),
    objective=st.builds(
        ObjectiveConfig,
        timesteps=st.integers(50, 10**6),
        schedule=st.sampled_from(["linear", "cosine", "clipped-cosine"]),
        prediction=st.sampled_from(["epsilon", "v", "x0"]),
        loss=st.sampled_from(["l1", "mse"]),
    ),
    optimisation=st.builds(
        OptimizerConfig,
        optimizer=st.just("sgd"),
        learning_rate=rates,
        warmup_steps=sizes,
        momentum=st.floats(0, 1),
        max_grad_norm=st.none() | rates,
    ),
    epochs=counts,
    seed=st.integers(0, 2**63 - 1),
    ema_decay=st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
    pretrained=paths,
)


@settings(max_examples=100, deadline=None)
@given(configs)
def test_settings_survive_json(config: TrainConfig) -> None:
    told = json.dumps(config.to_json(), allow_nan=False)
    assert TrainConfig.from_json(json.loads(told)) == config


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: told.pop("data"),
        lambda told: told.pop("model"),
        lambda told: told.update(colour="blue"),
        lambda told: told.update(seed=[1]),
        lambda told: told["model"].update(width=3),
        lambda told: told.update(optimisation=[1, 2]),
        lambda told: told.update(epochs="many"),
        lambda told: told.update(epochs=None),
    ],
)
def test_what_is_not_a_configuration_is_refused(damage: Any) -> None:
    told = TINY.to_json()
    damage(told)
    with pytest.raises(RetracError, match="configuration cannot be read"):
        TrainConfig.from_json(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, not 0"),
        ({"checkpoint_every": 0}, "--checkpoint-every must be at least 1"),
        ({"batch_size": -3}, "--batch-size must be at least 1, not -3"),
        ({"timesteps": 0}, "--timesteps must be at least 1"),
        ({"timesteps": 1}, "--sample-steps must be at most --timesteps, 1, not 2"),
        ({"sample_steps": 0}, "--sample-steps must be at least 1"),
        ({"sample_count": -1}, "--sample-count must be at least 0"),
        ({"channels": ()}, "--channels must be at least 1"),
        ({"channels": (8, 0)}, "--channels must be at least 1, not 0"),
        ({"layers_per_block": 0}, "--layers-per-block must be at least 1"),
        ({"norm_groups": 0}, "--norm-groups must be at least 1"),
        ({"attention_head_dim": 0}, "--attention-head-dim must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0 and at most 1e.30, not 0.0"),
        ({"learning_rate": -1.0}, "--learning-rate must be above 0"),
        ({"learning_rate": math.nan}, "--learning-rate must be above 0 .* not nan"),
        ({"learning_rate": math.inf}, "--learning-rate must be above 0 and at most 1e.30, not inf"),
        ({"learning_rate": 1e300}, "--learning-rate must be above 0 and at most 1e.30"),
        ({"weight_decay": 1e300}, "--weight-decay must be from 0 to 1e.30, not 1e.300"),
        ({"max_grad_norm": 0.0}, "--max-grad-norm must be above 0"),
        ({"max_grad_norm": math.nan}, "--max-grad-norm must be above 0 .* not nan"),
        ({"warmup_steps": -1}, "--warmup-steps must be at least 0"),
        ({"weight_decay": -0.1}, "--weight-decay must be from 0"),
        ({"weight_decay": math.nan}, "--weight-decay must be from 0 to .* not nan"),
        ({"optimizer": "sgd", "momentum": -0.1}, "--momentum must be from 0"),
        ({"optimizer": "adam", "momentum": 0.9}, "--momentum is for --optimizer sgd only"),
        ({"seed": -1}, r"--seed must be in \[0, 2\^63\), not -1"),
        ({"seed": 2**63}, "--seed must be in"),
        ({"ema_decay": 1.0}, "--ema-decay must be between 0 and 1, not 1.0"),
        ({"ema_decay": math.nan}, "--ema-decay must be between 0 and 1, not nan"),
        ({"schedule": "cosin"}, "unknown --schedule 'cosin': did you mean 'cosine'"),
        ({"optimizer": "sdg"}, "unknown --optimizer 'sdg': did you mean 'sgd'"),
        ({"mixed_precision": "fp8"}, "unknown --mixed-precision 'fp8': did you mean 'fp16'"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RetracError, match=told):
        tiny(**changes)


@pytest.mark.parametrize("name", NAMED)
def test_the_presets_of_named_datasets_are_settings_and_fit_their_images(name: str) -> None:
    from retrac.diffusion.model import build_unet

    known = NAMED[name]
    config = TrainConfig().with_preset(dict(known.preset))
    parts = (config, config.model, config.objective, config.optimisation)
    have = {field.name: getattr(part, field.name) for part in parts for field in fields(part)}
    assert {option: have[option] for option in known.preset} == dict(known.preset)
    slim = replace(config.model, channels=tuple(config.model.norm_groups for _ in have["channels"]))
    build_unet(replace(slim, attention_levels=()), (1, known.resolution, known.resolution), 0)
