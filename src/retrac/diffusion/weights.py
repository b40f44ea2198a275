"""Files of weights as diffusers saves them: in one piece or several, in full or half precision."""

from pathlib import Path
from typing import NamedTuple

from retrac.errors import RetracError
from retrac.files import read_json

NAME = "diffusion_pytorch_model"
VARIANTS = (None, "fp16", "bf16")
"""In the order in which they are looked for."""


class Weights(NamedTuple):
    """The weights in a folder.

    Attributes:
        files: that hold them, in order.
        variant: what diffusers calls their precision; None where it has no name.
    """

    files: list[Path]
    variant: str | None


def weights_in(folder: Path) -> Weights:
    """Find the files of weights in a folder.

    Raises:
        RetracError: there are none, or not all.
    """
    for variant in VARIANTS:
        ending = "safetensors" if variant is None else f"{variant}.safetensors"
        if (file := folder / f"{NAME}.{ending}").is_file():
            return Weights([file], variant)
        name = "index" if variant is None else f"index.{variant}"
        if (index := folder / f"{NAME}.safetensors.{name}.json").is_file():
            return Weights(_shards(index), variant)
    raise RetracError(f"{folder} holds no weights: it has no {NAME}.safetensors")


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map") or {}
    files = [index.parent / name for name in sorted({*names.values()})]
    for file in files:
        if not file.is_file():
            raise RetracError(f"{file} is missing: {index} names it as a part of the weights")
    return files
