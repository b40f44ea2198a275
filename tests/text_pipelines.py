"""Tiny pipelines of every family that is told texts, as diffusers saves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from families import ADAPTED, FAMILIES, family

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
TOKENS = 8
STEPS = 50


def text_pipeline(folder: Path, name: str, seed: int = 0) -> Path:
    """The pipeline of a family, for grey images of 16×16, latents `[4, 8, 8]`."""
    torch.manual_seed(seed)
    PIPELINES[name](folder, name)
    return folder


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


def _saved(kind: Any, folder: Path, **parts: Any) -> None:
    for part in parts.values():
        if isinstance(part, nn.Module):
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
    kind(**parts, vae=_encoder()).save_pretrained(folder)


def _stable_diffusion(folder: Path, name: str) -> None:
    _saved(
        StableDiffusionPipeline,
        folder,
        text_encoder=_clip(CLIPTextModel, 12),
        tokenizer=_clip_tokenizer(),
        unet=_network(name),
        scheduler=DDPMScheduler(STEPS, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
    )


def _stable_diffusion_xl(folder: Path, name: str) -> None:
    _saved(
        StableDiffusionXLPipeline,
        folder,
        text_encoder=_clip(CLIPTextModel, 4),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 8, 10),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=_network(name),
        scheduler=DDPMScheduler(STEPS, clip_sample=False, prediction_type="v_prediction"),
    )


def _stable_diffusion_3(folder: Path, name: str) -> None:
    with_t5 = name == "Stable Diffusion 3"
    _saved(
        StableDiffusion3Pipeline,
        folder,
        text_encoder=_clip(CLIPTextModelWithProjection, 4, 4),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 8, 6),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(12) if with_t5 else None,
        tokenizer_3=_t5_tokenizer() if with_t5 else None,
        transformer=_network(name),
        scheduler=FlowMatchEulerDiscreteScheduler(STEPS, shift=3.0),
    )


def _flux(folder: Path, name: str) -> None:
    _saved(
        FluxPipeline,
        folder,
        text_encoder=_clip(CLIPTextModel, 10),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(12),
        tokenizer_2=_t5_tokenizer(),
        transformer=_network(name),
        scheduler=FlowMatchEulerDiscreteScheduler(STEPS, use_dynamic_shifting=True),
    )


def _network(name: str) -> nn.Module:
    assert name in FAMILIES
    return family(name).network


def _clip(kind: Any, width: int, projected: int = 4) -> nn.Module:
    config = CLIPTextConfig(
        vocab_size=len(LETTERS) * 2 + 2,
        hidden_size=width,
        intermediate_size=8,
        projection_dim=projected,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        eos_token_id=len(LETTERS) * 2 + 1,
    )
    return kind(config).eval()  # type: ignore[no-any-return]


def _clip_tokenizer() -> CLIPTokenizer:
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        {word: number for number, word in enumerate(words)}, [], model_max_length=TOKENS
    )


def _t5(width: int) -> nn.Module:
    config = T5Config(
        vocab_size=len(LETTERS) + 4, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    return T5EncoderModel(config).eval()


def _t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return T5Tokenizer(
        vocab=[*pieces, *((letter, -2.0) for letter in LETTERS)],
        extra_ids=0,
        model_max_length=TOKENS,
    )


def _encoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=0.1,
    )


PIPELINES: dict[str, Callable[[Path, str], None]] = {
    "Stable Diffusion": _stable_diffusion,
    "Stable Diffusion XL": _stable_diffusion_xl,
    "Stable Diffusion 3": _stable_diffusion_3,
    "Stable Diffusion 3.5": _stable_diffusion_3,
    "Flux": _flux,
    "Flux, guided": _flux,
}
