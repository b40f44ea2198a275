"""Tiny models of every family that `retrac adopt` knows, with random weights, as diffusers saves
them: stand-ins for downloaded ones, in the examples and in the tests."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
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

STEPS = 50
"""Timesteps of each."""
CLASSES = 10
TOKENS = 8
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
BLOCKS: dict[str, Any] = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
}
TEXT: dict[str, Any] = {
    **BLOCKS,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
PATCHES: dict[str, Any] = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 4,
    "num_attention_heads": 2,
}


def unet(classes: int | None = None, channels: int = 1) -> nn.Module:
    """Of images of 8×8, as in DDPM; told classes, if there are some."""
    return UNet2DModel(
        **BLOCKS,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        num_class_embeds=classes,
    )


def stable_diffusion_unet() -> nn.Module:
    """Of latents `[4, 8, 8]`, like those of all below."""
    return UNet2DConditionModel(**TEXT)


def stable_diffusion_xl_unet() -> nn.Module:
    """Told a pooled text and sizes, too."""
    return UNet2DConditionModel(
        **TEXT,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=4 * 6 + 10,
    )


def dit() -> nn.Module:
    """Predicts variances, too."""
    return DiTTransformer2DModel(**PATCHES, out_channels=8, num_embeds_ada_norm=CLASSES)


def sd3(**changes: Any) -> nn.Module:
    """Of Stable Diffusion 3; of 3.5 with normalised queries and keys, and dual attention."""
    return SD3Transformer2DModel(
        **PATCHES,
        out_channels=4,
        joint_attention_dim=12,
        caption_projection_dim=8,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        **changes,
    )


def sd35() -> nn.Module:
    """Of Stable Diffusion 3.5."""
    return sd3(qk_norm="rms_norm", dual_attention_layers=(0,))


def flux(guided: bool = False) -> nn.Module:
    """Told the guidance, or not."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=guided,
    )


def stirred(network: nn.Module) -> nn.Module:
    """With weights some of which would start at zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def save(name: str, folder: Path, seed: int = 0, channels: int = 3) -> Path:
    """Save the pipeline of a family.

    Args:
        name: one of `PIPELINES`.
        folder: to write.
        seed: of its weights.
        channels: of images, which are 16×16, or 8×8 where a U-Net sees the pixels.
    """
    torch.manual_seed(seed)
    PIPELINES[name](channels).save_pretrained(folder)
    return folder


def _pixels(channels: int, classes: int | None = None) -> Any:
    scheduler = DDPMScheduler(STEPS)
    return DDPMPipeline(stirred(unet(classes, channels)), scheduler)


def _dit(channels: int) -> Any:
    scheduler = DDIMScheduler(STEPS, clip_sample=False)
    return DiTPipeline(stirred(dit()), encoder(channels, 0.1), scheduler)


def _stable_diffusion(channels: int) -> Any:
    return StableDiffusionPipeline(
        vae=encoder(channels),
        text_encoder=_clip(CLIPTextModel, 12),
        tokenizer=_clip_tokenizer(),
        unet=stirred(stable_diffusion_unet()),
        scheduler=DDPMScheduler(STEPS, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl(channels: int) -> Any:
    return StableDiffusionXLPipeline(
        vae=encoder(channels),
        text_encoder=_clip(CLIPTextModel, 4),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 8, 10),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=stirred(stable_diffusion_xl_unet()),
        scheduler=DDPMScheduler(STEPS, clip_sample=False, prediction_type="v_prediction"),
    )


def _stable_diffusion_3(channels: int, network: nn.Module, with_t5: bool) -> Any:
    return StableDiffusion3Pipeline(
        vae=encoder(channels, 0.1),
        text_encoder=_clip(CLIPTextModelWithProjection, 4, 4),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 8, 6),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(12) if with_t5 else None,
        tokenizer_3=_t5_tokenizer() if with_t5 else None,
        transformer=stirred(network),
        scheduler=FlowMatchEulerDiscreteScheduler(STEPS, shift=3.0),
    )


def _flux(channels: int, guided: bool) -> Any:
    return FluxPipeline(
        vae=encoder(channels, 0.1),
        text_encoder=_clip(CLIPTextModel, 10),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(12),
        tokenizer_2=_t5_tokenizer(),
        transformer=stirred(flux(guided)),
        scheduler=FlowMatchEulerDiscreteScheduler(STEPS, use_dynamic_shifting=True),
    )


TOLD_TEXTS: Mapping[str, Callable[[int], Any]] = {
    "Stable Diffusion": _stable_diffusion,
    "Stable Diffusion XL": _stable_diffusion_xl,
    "Stable Diffusion 3": lambda channels: _stable_diffusion_3(channels, sd3(), True),
    "Stable Diffusion 3.5": lambda channels: _stable_diffusion_3(channels, sd35(), False),
    "Flux": lambda channels: _flux(channels, False),
    "Flux, guided": lambda channels: _flux(channels, True),
}
PIPELINES: Mapping[str, Callable[[int], Any]] = {
    "U-Net": _pixels,
    "U-Net of classes": lambda channels: _pixels(channels, CLASSES),
    "DiT": _dit,
    **TOLD_TEXTS,
}


def encoder(channels: int, shift: float | None = None) -> nn.Module:
    """From images of 16×16 to latents `[4, 8, 8]`; newer ones shift them, too."""
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=shift,
    )


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
    return stirred(kind(config))


def _clip_tokenizer() -> CLIPTokenizer:
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    numbers = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(numbers, [], model_max_length=TOKENS)


def _t5(width: int) -> nn.Module:
    config = T5Config(
        vocab_size=len(LETTERS) + 4, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    return stirred(T5EncoderModel(config))


def _t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return T5Tokenizer(
        vocab=[*pieces, *((letter, -2.0) for letter in LETTERS)],
        extra_ids=0,
        model_max_length=TOKENS,
    )
