"""Tiny pipelines that are told texts, and LoRAs of them, as diffusers saves them."""

import json
from pathlib import Path
from typing import Any

import tiny_models
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from tiny_models import STEPS, TOKENS, TOLD_TEXTS

from families import ADAPTED

__all__ = ["STEPS", "TOKENS", "TOLD_TEXTS", "lora", "opened", "text_pipeline"]


def text_pipeline(folder: Path, name: str, seed: int = 0) -> Path:
    """The pipeline of a family, for grey images of 16×16, latents `[4, 8, 8]`."""
    return tiny_models.save(name, folder, seed, channels=1)


def lora(folder: Path, pipeline: Path, part: str, seed: int = 1) -> Path:
    """A LoRA of a pipeline's network, as diffusers' training scripts save it."""
    torch.manual_seed(seed)
    whole = opened(pipeline)
    network = getattr(whole, part)
    network.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=list(ADAPTED)))
    for parameter_name, parameter in network.named_parameters():
        if "lora" in parameter_name:
            parameter.data.normal_(std=0.3)
    layers = get_peft_model_state_dict(network)
    type(whole).save_lora_weights(folder, **{f"{part}_lora_layers": layers})
    return folder


def opened(pipeline: Path) -> Any:
    """As diffusers loads it."""
    index = json.loads((pipeline / "model_index.json").read_text())
    absent = {name: None for name, value in index.items() if value == [None, None]}
    return DiffusionPipeline.from_pretrained(pipeline, **absent)
