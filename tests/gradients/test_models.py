"""Whole U-Nets from diffusers."""

import pytest
import torch
from diffusers import UNet2DModel

from retrac.gradients import routes

from .agreement import TOLERANCE, assert_agrees, directions_for

PLAIN = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "add_attention": False,
}

VARIATIONS = {
    "plain": {},
    "attention": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "add_attention": True,
    },
    "resnet sampling": {"downsample_type": "resnet", "upsample_type": "resnet"},
    "resnet blocks": {
        "down_block_types": ("ResnetDownsampleBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "ResnetUpsampleBlock2D"),
    },
    "scale_shift": {"resnet_time_scale_shift": "scale_shift", "add_attention": True},
    "class-conditional": {"num_class_embeds": 3, "time_embedding_type": "fourier"},
    "skip": {
        "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        "block_out_channels": (32, 32),
        "norm_num_groups": 8,
        "attention_head_dim": 16,
    },
}


def unet(variation: str, dtype: torch.dtype) -> UNet2DModel:
    model = UNet2DModel(**{**PLAIN, **VARIATIONS[variation]}).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # some start at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("variation", VARIATIONS)
def test_unets(variation, dtype, bands, monkeypatch):
    torch.set_default_dtype(dtype)
    model = unet(variation, dtype)
    if dtype is torch.float64:
        monkeypatch.setattr(routes, "TILE_BYTES", 2**12)
    else:
        model = model.to(memory_format=torch.channels_last)
    images, noise = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    timesteps = torch.tensor([3, 500, 999, 3])
    labels = torch.tensor([0, 2, 0, 1]) if model.config.num_class_embeds else None

    def losses():
        return (model(images, timesteps, labels).sample - noise).abs().flatten(1).mean(1)

    assert_agrees(model, losses, (1, 2))


def test_gradient_checkpointing_is_refused():
    from .agreement import assert_refused

    model = unet("plain", torch.float64).train()
    model.enable_gradient_checkpointing()
    images = torch.randn(2, 3, 8, 8)
    losses = lambda: model(images, 3).sample.square().flatten(1).mean(1)  # noqa: E731
    assert_refused(model, losses, "disable_gradient_checkpointing")


def test_one_timestep_for_all_samples():
    """The timestep's embedding is then computed for one, and broadcast."""
    model = unet("plain", torch.float64)
    images = torch.randn(2, 3, 8, 8)
    assert_agrees(model, lambda: model(images, 3).sample.square().flatten(1).mean(1))
    assert len(directions_for(model)) == len(list(model.parameters()))
