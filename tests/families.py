"""A tiny network of every family that we claim, with random weights, and what it could be shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from peft import LoraConfig
from torch import Tensor, nn

from retrac.diffusion.calls import call_of
from retrac.diffusion.shown import Seen

SAMPLES = 3
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
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")


class Family(NamedTuple):
    """A network, and three samples as it sees them."""

    network: nn.Module
    seen: Seen

    @property
    def call(self) -> Callable[..., Tensor]:
        """How it is called."""
        return call_of(type(self.network).__name__)


def family(name: str) -> Family:
    """The network of this name."""
    torch.manual_seed(0)
    kind, _, lora = name.partition(" with ")
    network, seen = FAMILIES[kind]()
    if lora:
        network.requires_grad_(False)
        network.add_adapter(LoraConfig(r=2, target_modules=list(ADAPTED)))
    with torch.no_grad():
        for parameter in network.parameters():  # some start at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Family(network.eval(), seen)


def pipeline(folder: Path, classes: int | None = None, seed: int = 0, **changes: Any) -> Path:
    """As `train_unconditional.py` of diffusers leaves it, with random weights."""
    torch.manual_seed(seed)
    network = UNet2DModel(
        sample_size=8,
        in_channels=changes.pop("channels", 1),
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        num_class_embeds=classes,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    scheduler = changes.pop("scheduler", None) or DDPMScheduler(50, **changes)
    DDPMPipeline(network, scheduler).save_pretrained(folder)
    return folder


def latent_pipeline(folder: Path) -> Path:
    """A DiT on latents `[4, 8, 8]` of grey images of 16×16, as diffusers saves it."""
    torch.manual_seed(0)
    network, _ = _dit()
    encoder = AutoencoderKL(
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
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    DiTPipeline(network, encoder, DDIMScheduler(50, clip_sample=False)).save_pretrained(folder)
    return folder


def _latents(channels: int = 4) -> Tensor:
    return torch.randn(SAMPLES, channels, 8, 8)


def _classes() -> dict[str, Tensor]:
    return {"class_labels": torch.tensor([0, 2, 2])}


def _text(**more: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": torch.randn(SAMPLES, 5, 12), **more}


def _pooled(**more: Tensor) -> dict[str, Tensor]:
    return _text(pooled_projections=torch.randn(SAMPLES, 10), **more)


def _unet(**changes: Any) -> tuple[nn.Module, Seen]:
    plain = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
    }
    network = UNet2DModel(**BLOCKS, **plain, in_channels=1, out_channels=1, **changes)
    return network, Seen(_latents(1), _classes() if changes else {})


def _stable_diffusion() -> tuple[nn.Module, Seen]:
    return UNet2DConditionModel(**TEXT), Seen(_latents(), _text())


def _stable_diffusion_xl() -> tuple[nn.Module, Seen]:
    network = UNet2DConditionModel(
        **TEXT,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=4 * 6 + 10,
    )
    more = {"text_embeds": torch.randn(SAMPLES, 10), "time_ids": torch.randn(SAMPLES, 6)}
    return network, Seen(_latents(), _text(**more))


def _dit() -> tuple[nn.Module, Seen]:
    network = DiTTransformer2DModel(**PATCHES, out_channels=8, num_embeds_ada_norm=10)
    return network, Seen(_latents(), _classes())


def _stable_diffusion_3(**changes: Any) -> tuple[nn.Module, Seen]:
    network = SD3Transformer2DModel(
        **PATCHES,
        out_channels=4,
        joint_attention_dim=12,
        caption_projection_dim=8,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        **changes,
    )
    return network, Seen(_latents(), _pooled())


def _flux(guided: bool) -> tuple[nn.Module, Seen]:
    network = FluxTransformer2DModel(
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
    told = {"guidance": torch.tensor([3.5, 1.0, 3.5])} if guided else {}
    return network, Seen(_latents(), _pooled(**told))


FAMILIES: dict[str, Callable[[], tuple[nn.Module, Seen]]] = {
    "U-Net": _unet,
    "U-Net of classes": lambda: _unet(num_class_embeds=3),
    "Stable Diffusion": _stable_diffusion,
    "Stable Diffusion XL": _stable_diffusion_xl,
    "DiT": _dit,
    "Stable Diffusion 3": _stable_diffusion_3,
    "Stable Diffusion 3.5": lambda: _stable_diffusion_3(
        qk_norm="rms_norm", dual_attention_layers=(0,)
    ),
    "Flux": lambda: _flux(guided=False),
    "Flux, guided": lambda: _flux(guided=True),
}
ADAPTERS = tuple(
    f"{name} with LoRA"
    for name in ("Stable Diffusion", "Stable Diffusion XL", "Stable Diffusion 3", "Flux")
)
EVERY = (*FAMILIES, *ADAPTERS)
