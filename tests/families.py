"""A tiny network of every family that we claim, with random weights, and what it could be shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tiny_models
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from peft import LoraConfig
from torch import Tensor, nn

from retrac.diffusion.calls import call_of
from retrac.diffusion.published import PublishedUNet
from retrac.diffusion.shown import Seen

SAMPLES = 3
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
    network, told, channels = FAMILIES[kind]
    seen = Seen(torch.randn(SAMPLES, channels, 8, 8), told())
    network = network()
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
    return tiny_models.save("DiT", folder, channels=1)


def _nothing() -> dict[str, Tensor]:
    return {}


def _classes() -> dict[str, Tensor]:
    return {"class_labels": torch.tensor([0, 2, 2])}


def _text(**more: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": torch.randn(SAMPLES, 5, 12), **more}


def _text_and_sizes() -> dict[str, Tensor]:
    return _text(text_embeds=torch.randn(SAMPLES, 10), time_ids=torch.randn(SAMPLES, 6))


def _pooled(**more: Tensor) -> dict[str, Tensor]:
    return _text(pooled_projections=torch.randn(SAMPLES, 10), **more)


def _guided() -> dict[str, Tensor]:
    return _pooled(guidance=torch.tensor([3.5, 1.0, 3.5]))


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]], int]] = {
    "U-Net": (tiny_models.unet, _nothing, 1),
    "U-Net of the published code": (lambda: PublishedUNet(3, (8, 16, 24)), _nothing, 3),
    "U-Net of classes": (lambda: tiny_models.unet(3), _classes, 1),
    "Stable Diffusion": (tiny_models.stable_diffusion_unet, _text, 4),
    "Stable Diffusion XL": (tiny_models.stable_diffusion_xl_unet, _text_and_sizes, 4),
    "DiT": (tiny_models.dit, _classes, 4),
    "Stable Diffusion 3": (tiny_models.sd3, _pooled, 4),
    "Stable Diffusion 3.5": (tiny_models.sd35, _pooled, 4),
    "Flux": (tiny_models.flux, _pooled, 4),
    "Flux, guided": (lambda: tiny_models.flux(True), _guided, 4),
}
ADAPTERS = tuple(
    f"{name} with LoRA"
    for name in ("Stable Diffusion", "Stable Diffusion XL", "Stable Diffusion 3", "Flux")
)
EVERY = (*FAMILIES, *ADAPTERS)
