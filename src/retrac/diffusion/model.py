"""Networks: built from a configuration, or loaded from diffusers' own files."""

import gc
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import UNet2DModel
from torch import nn

from retrac.diffusion.config import ModelConfig
from retrac.errors import RetracError, first_line


def build_unet(config: ModelConfig, shape: tuple[int, int, int], seed: int) -> UNet2DModel:
    """Build a U-Net for images of shape (C, H, W), with weights drawn from `seed`.

    Raises:
        RetracError: the resolution cannot be halved that often, or widths and groups disagree.
    """
    channels, height, width = shape
    levels = len(config.channels)
    _refuse_odd_sizes(shape, levels)
    if any(c % config.norm_groups for c in config.channels):
        raise RetracError(
            f"--norm-groups {config.norm_groups} does not divide every one of --channels "
            f"{' '.join(map(str, config.channels))}"
        )
    for level in config.attention_levels:
        if not 0 <= level < levels or config.channels[level] % config.attention_head_dim:
            raise RetracError(
                f"no attention at level {level}: levels are 0 to {levels - 1}, and "
                f"--attention-head-dim {config.attention_head_dim} must divide the width"
            )
    attended = [level in config.attention_levels for level in range(levels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=(height, width),
            in_channels=channels,
            out_channels=channels,
            block_out_channels=config.channels,
            layers_per_block=config.layers_per_block,
            down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attended],
            up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)],
            # Without its own heads, the middle block takes part only where the last level does.
            add_attention=attended[-1],
            attention_head_dim=config.attention_head_dim,
            norm_num_groups=config.norm_groups,
            resnet_time_scale_shift=config.time_scale_shift,
            downsample_type=config.resampling,
            upsample_type=config.resampling,
        )


def load_network(folder: Path, family: str, variant: str | None = None) -> Any:
    """Load a network of one of diffusers' classes from the folder with its configuration.

    In float32, whatever they were saved in. Dropout is switched off: it is random beyond what the
    ledger decides.

    Raises:
        RetracError: absent or damaged.
    """
    if not (folder / "config.json").is_file():
        raise RetracError(f"{folder} holds no diffusers model: it has no config.json")
    try:
        model, loading = getattr(diffusers, family).from_pretrained(
            folder,
            use_safetensors=True,
            variant=variant,
            low_cpu_mem_usage=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # diffusers, safetensors and torch each have their own
        raise RetracError(
            f"the model in {folder} cannot be loaded ({first_line(error)}); it may be damaged"
        ) from error
    if loading["missing_keys"]:  # diffusers would go on with random numbers
        raise RetracError(
            f"the model in {folder} lacks weights ({loading['missing_keys'][0]}); it may be damaged"
        )
    return ready(model)


def load_unet(folder: Path, shape: tuple[int, int, int]) -> UNet2DModel:
    """Load a U-Net from a diffusers folder (or its `unet` subfolder), for images of a shape.

    Raises:
        RetracError: absent, damaged, or made for other images.
    """
    inner = folder / "unet"
    model: UNet2DModel = load_network(inner if inner.is_dir() else folder, "UNet2DModel")
    if model.config.in_channels != shape[0] or model.config.out_channels != shape[0]:
        raise RetracError(
            f"the model in {folder} is for {model.config.in_channels} channels, "
            f"but the images have {shape[0]}"
        )
    if model.class_embedding is not None:
        raise RetracError(f"the model in {folder} needs class labels, which images here lack")
    _refuse_odd_sizes(shape, len(model.config.block_out_channels))
    return model


def ready(model: Any) -> Any:
    """The network in evaluation mode, without dropout, channels last, in memory of its own."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model = model.eval().to(memory_format=torch.channels_last)
    for parameter in model.parameters():  # some still lie in the file, which stays in memory then
        parameter.data = parameter.data.clone()
    gc.collect()  # loading leaves cycles that hold the file
    return model


def _refuse_odd_sizes(shape: tuple[int, int, int], levels: int) -> None:
    _, height, width = shape
    if any(side % 2 ** (levels - 1) for side in (height, width)):
        raise RetracError(
            f"images of {height}x{width} cannot be halved {levels - 1} times: give fewer "
            "--channels, or another --resolution"
        )
