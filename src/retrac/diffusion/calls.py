"""How the networks of each family are called: the same `(noisy, told, conditions)` for all."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from retrac.errors import RetracError

Conditions = Mapping[str, Tensor]
Call = Callable[[Any, Tensor, Tensor, Conditions], Tensor]
"""`(network, noisy [B, …], told [B] or one for all, conditions) -> prediction [B, …]`."""

ADDED = ("text_embeds", "time_ids")
"""Conditions that a network takes in a dictionary of their own (Stable Diffusion XL)."""


def unet(model: Any, noisy: Tensor, told: Tensor, conditions: Conditions) -> Tensor:
    """`UNet2DModel`; conditions: none, or `class_labels [B]`."""
    return model(noisy, told, **conditions).sample


def conditional_unet(model: Any, noisy: Tensor, told: Tensor, conditions: Conditions) -> Tensor:
    """`UNet2DConditionModel`; conditions: `encoder_hidden_states [B, L, D]`, and of Stable
    Diffusion XL `text_embeds` and `time_ids`."""
    added = {name: conditions[name] for name in ADDED if name in conditions}
    own = {name: value for name, value in conditions.items() if name not in ADDED}
    return model(noisy, told, **own, added_cond_kwargs=added or None).sample


def dit(model: Any, noisy: Tensor, told: Tensor, conditions: Conditions) -> Tensor:
    """`DiTTransformer2DModel`; conditions: `class_labels [B]`. Variances that it predicts beside
    the noise are not looked at, as in the simple loss."""
    prediction: Tensor = model(noisy, timestep=told.expand(len(noisy)), **conditions).sample
    return prediction[:, : noisy.shape[1]]


def sd3(model: Any, noisy: Tensor, told: Tensor, conditions: Conditions) -> Tensor:
    """`SD3Transformer2DModel`; conditions: `encoder_hidden_states`, `pooled_projections`."""
    return model(hidden_states=noisy, timestep=told.expand(len(noisy)), **conditions).sample


def flux(model: Any, noisy: Tensor, told: Tensor, conditions: Conditions) -> Tensor:
    """`FluxTransformer2DModel` on latents `[B, C, H, W]`, which it sees in patches of 2×2;
    conditions: `encoder_hidden_states [B, L, D]`, `pooled_projections`, and `guidance [B]` of
    models that are told it."""
    text = conditions["encoder_hidden_states"]
    prediction = model(
        hidden_states=packed(noisy),
        timestep=told.expand(len(noisy)) / 1000,  # told as the other families are, in thousandths
        img_ids=places(noisy),
        txt_ids=text.new_zeros(text.shape[1], 3),
        **conditions,
    ).sample
    return unpacked(prediction, noisy.shape)


def published(model: Any, noisy: Tensor, told: Tensor, conditions: Conditions) -> Tensor:
    """`PublishedUNet`; conditions: none."""
    return model(noisy, told)


CALLS: dict[str, Call] = {
    "PublishedUNet": published,
    "UNet2DModel": unet,
    "UNet2DConditionModel": conditional_unet,
    "DiTTransformer2DModel": dit,
    "SD3Transformer2DModel": sd3,
    "FluxTransformer2DModel": flux,
}


def call_of(family: str) -> Call:
    """How a class of diffusers' networks is called.

    Raises:
        RetracError: it is not known here.
    """
    if family not in CALLS:
        raise RetracError(
            f"networks of class {family} are not known here; known are {', '.join(CALLS)}"
        )
    return CALLS[family]


def packed(latents: Tensor) -> Tensor:
    """`[B, C, H, W]` -> `[B, H/2·W/2, 4C]`: the patches that Flux sees, row by row.

    Raises:
        RetracError: a side is odd.
    """
    if latents.shape[2] % 2 or latents.shape[3] % 2:
        raise RetracError(f"latents of {latents.shape[2]}x{latents.shape[3]} have no 2x2 patches")
    patches = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [B, C, h, 2, w, 2]
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(patches: Tensor, shape: torch.Size) -> Tensor:
    """The way back, to a shape `[B, C, H, W]`."""
    _, channels, height, width = shape
    apart = patches.unflatten(2, (channels, 2, 2)).unflatten(1, (height // 2, width // 2))
    return apart.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def places(latents: Tensor) -> Tensor:
    """Where each patch of latents `[B, C, H, W]` lies, `[H/2·W/2, 3]`: (0, row, column)."""
    down, right = latents.shape[2] // 2, latents.shape[3] // 2
    rows, columns = torch.meshgrid(torch.arange(down), torch.arange(right), indexing="ij")
    found = torch.stack((torch.zeros_like(rows), rows, columns), -1).flatten(0, 1)
    return found.to(latents)
