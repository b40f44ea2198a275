"""Networks with a LoRA (Hu et al. 2022), as diffusers' training scripts save them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from retrac.diffusion.libraries import quiet, require
from retrac.diffusion.model import ready
from retrac.errors import RetracError, first_line

LORA = "pytorch_lora_weights.safetensors"
LORA_PARAMETERS = "lora_"
"""What the names of a LoRA's parameters, and no others, have in them."""
HALF = re.compile(r"(.+)\.(lora_A|lora_B|lora\.down|lora\.up)\.")
"""The name of one half of an update."""


def adapted(pipeline: Any, part: str, file: Path) -> Any:
    """A pipeline's network with a LoRA, whose parameters alone are left trainable.

    Args:
        pipeline: of diffusers.
        part: the name of its network.
        file: of the LoRA.

    Raises:
        RetracError: damaged, made for another network, or it adapts a text encoder, too.
    """
    require("peft", "LoRAs")
    names = refuse_foreign(file, part)
    try:
        with quiet():  # about what fits, we say more below
            pipeline.load_lora_weights(file.parent, weight_name=file.name)
    except Exception as error:  # each of the libraries beneath has its own
        raise RetracError(
            f"the LoRA {file} does not fit the network ({first_line(error)})"
        ) from error
    network = getattr(pipeline, part)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(LORA_PARAMETERS in name)
    wanted, there = _halves(names, f"{part}."), _halves(dict(network.named_parameters()))
    if not there or wanted != there:
        raise RetracError(
            f"the LoRA {file} does not fit the network: of {len(wanted)} halves of updates, "
            f"{len(wanted & there)} found their place (known are files of diffusers' own format)"
        )
    return ready(network)


def refuse_foreign(file: Path, part: str) -> list[str]:
    """Refuse a LoRA of another kind of network, or in another format; the names of its tensors.

    Raises:
        RetracError: damaged, or it adapts something else.
    """
    names = _names(file)
    if others := [name for name in names if name.startswith("text_encoder")]:
        raise RetracError(
            f"{file} adapts the text encoder, too ({others[0]}), whose training is not known here"
        )
    if not _halves(names, f"{part}."):
        raise RetracError(
            f"{file} holds no LoRA of a {part} in diffusers' own format: its tensors have names "
            f"such as {min(names, default='none at all')}"
        )
    return names


def _halves(names: Iterable[str], prefix: str = "") -> set[tuple[str, bool]]:
    """Of each update BA, by the name of its layer, whether it is A or not."""
    found = (HALF.match(name.removeprefix(prefix)) for name in names if name.startswith(prefix))
    return {(match[1], match[2] in ("lora_A", "lora.down")) for match in found if match}


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, "pt") as opened:
            return list(opened.keys())
    except Exception as error:  # of safetensors, in words of its own
        raise RetracError(f"{file} cannot be read ({first_line(error)}); it may be damaged") from (
            error
        )
