"""What networks are told of a text: prompts embedded by the text encoders of their pipeline."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrac.diffusion.calls import Conditions
from retrac.diffusion.libraries import quiet


class Prompts(NamedTuple):
    """What is to be embedded, and how.

    Attributes:
        texts: B of them.
        absent: embed what stands for no text at all, B times, instead.
        size: height and width of the images.
        tokens: of T5, where the pipeline has it; longer texts are cut.
        guidance: what the network is told of it, where it is told.
    """

    texts: Sequence[str]
    absent: bool
    size: tuple[int, int]
    tokens: int
    guidance: float


def stable_diffusion(pipeline: Any, prompts: Prompts) -> Conditions:
    """`StableDiffusionPipeline`: the last hidden states of CLIP."""
    some, none = pipeline.encode_prompt(
        list(prompts.texts), _device(pipeline), 1, do_classifier_free_guidance=prompts.absent
    )
    return {"encoder_hidden_states": none if prompts.absent else some}


def stable_diffusion_xl(pipeline: Any, prompts: Prompts) -> Conditions:
    """`StableDiffusionXLPipeline`: two CLIPs, and sizes as of images that were not cropped."""
    some, none, pooled, none_pooled = pipeline.encode_prompt(
        list(prompts.texts),
        device=_device(pipeline),
        do_classifier_free_guidance=prompts.absent,
    )
    sizes = torch.tensor([[*prompts.size, 0, 0, *prompts.size]], dtype=some.dtype)
    return {
        "encoder_hidden_states": none if prompts.absent else some,
        "text_embeds": none_pooled if prompts.absent else pooled,
        "time_ids": sizes.expand(len(prompts.texts), -1),
    }


def stable_diffusion_3(pipeline: Any, prompts: Prompts) -> Conditions:
    """`StableDiffusion3Pipeline`: two CLIPs, and T5 or zeros in its place."""
    some, none, pooled, none_pooled = pipeline.encode_prompt(
        list(prompts.texts),
        None,
        None,
        device=_device(pipeline),
        do_classifier_free_guidance=prompts.absent,
        max_sequence_length=prompts.tokens,
    )
    return {
        "encoder_hidden_states": none if prompts.absent else some,
        "pooled_projections": none_pooled if prompts.absent else pooled,
    }


def flux(pipeline: Any, prompts: Prompts) -> Conditions:
    """`FluxPipeline`: T5, CLIP's pooled state, and the guidance that models are told."""
    texts = [""] * len(prompts.texts) if prompts.absent else list(prompts.texts)
    some, pooled, _ = pipeline.encode_prompt(
        texts, None, device=_device(pipeline), max_sequence_length=prompts.tokens
    )
    told = {"encoder_hidden_states": some, "pooled_projections": pooled}
    if pipeline.transformer.config.guidance_embeds:
        told["guidance"] = some.new_full((len(texts),), prompts.guidance)
    return told


EMBEDDINGS: Mapping[str, Callable[[Any, Prompts], Conditions]] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "FluxPipeline": flux,
}
"""By the class of the pipeline."""

TOKENS = {"StableDiffusion3Pipeline": 77, "FluxPipeline": 512}
"""Of T5, as diffusers' training scripts have them."""


@torch.no_grad()
def embed(pipeline: Any, prompts: Prompts, device: torch.device) -> dict[str, Tensor]:
    """Conditions by name `[B, …]`, on the CPU in float32.

    Args:
        pipeline: of diffusers, with its text encoders and tokenizers.
        prompts: B texts.
        device: where the encoders work; they go back to the CPU, for they can be as large as the
            network, which needs the room.
    """
    encoders = [
        part for name, part in pipeline.components.items() if name.startswith("text_encoder")
    ]
    try:
        for encoder in filter(None, encoders):
            encoder.to(device)
        with quiet():  # about texts that are cut
            found = EMBEDDINGS[type(pipeline).__name__](pipeline, prompts)
    finally:
        for encoder in filter(None, encoders):
            encoder.to("cpu")
    return {name: value.float().cpu() for name, value in found.items()}


def _device(pipeline: Any) -> torch.device:
    encoder: torch.nn.Module = pipeline.text_encoder
    return next(encoder.parameters()).device
