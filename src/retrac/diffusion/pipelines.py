"""Folders of trained models in diffusers' layouts: whole pipelines, and what training scripts save
on the way."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin

from retrac.diffusion.configs import read_config, unusual
from retrac.diffusion.libraries import quiet, require
from retrac.diffusion.lora import LORA, adapted, refuse_foreign
from retrac.diffusion.model import load_network
from retrac.diffusion.texts import EMBEDDINGS
from retrac.diffusion.weights import VARIANTS, weights_in
from retrac.errors import RetracError, first_line
from retrac.files import read_json
from retrac.fingerprints import digest, fingerprint

SCHEDULER = "scheduler_config.json"
NETWORKS = ("unet", "transformer")
ENCODERS = ("vae", "vqvae")
ONE = ("text_encoder", "tokenizer")
TWO = (*ONE, "text_encoder_2", "tokenizer_2")
UNTOLD = ("UNet2DModel", "DiTTransformer2DModel")
"""Families that are told no text."""
PARTS: dict[str, tuple[tuple[str, str], tuple[str, ...]]] = {
    "StableDiffusionPipeline": (("unet", "UNet2DConditionModel"), ONE),
    "StableDiffusionXLPipeline": (("unet", "UNet2DConditionModel"), TWO),
    "StableDiffusion3Pipeline": (("transformer", "SD3Transformer2DModel"), TWO),
    "FluxPipeline": (("transformer", "FluxTransformer2DModel"), TWO),
}
"""Of each class that is told texts: the network, and the parts without which it embeds none."""
UNSAID = {"FluxTransformer2DModel": 128}
"""Sides of latents of families that do not say them, as their pipelines have them."""
TEXT_PARTS = ("text_encoder", "tokenizer")
"""What the names of the parts begin with that embed texts."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's folder.

    Attributes:
        path: of it.
        kind: its class.
        part: the name of its network's subfolder.
        family: the network's class.
        config: the network's configuration.
    """

    path: Path
    kind: str
    part: str
    family: str
    config: dict[str, Any]

    @staticmethod
    def open(path: Path) -> "Pipeline":
        """Look at a folder; weights are not loaded.

        Raises:
            RetracError: it is no pipeline, or of a family that is not known here.
        """
        if not (path / "model_index.json").is_file():
            raise RetracError(
                f"{path} is no pipeline of diffusers: it has no model_index.json; give the folder "
                "that `save_pretrained` wrote, and folders with other weights by --weights"
            )
        index = read_json(path / "model_index.json")
        part = next((name for name in NETWORKS if name in index), None)
        if part is None:
            raise RetracError(f"{path} has no network: neither {' nor '.join(NETWORKS)}")
        config = read_config(_inner(path, part))
        kind, family = str(index.get("_class_name")), str(config.get("_class_name"))
        if family not in UNTOLD and kind not in EMBEDDINGS:
            raise RetracError(
                f"{path} is a {kind} with a {family}, which is not known here: known are networks "
                f"of class {', '.join(UNTOLD)}, and {', '.join(EMBEDDINGS)}"
            )
        if kind in EMBEDDINGS:
            require("transformers", "pipelines that are told texts")
            _refuse_unlike(path, kind, part, family, index)
        return Pipeline(path, kind, part, family, config)

    @property
    def told_text(self) -> bool:
        """Whether the network is told a text."""
        return self.kind in EMBEDDINGS

    @property
    def scheduler(self) -> SchedulerMixin:
        """Its noise schedule.

        Raises:
            RetracError: absent, or of no class of diffusers.
        """
        folder = _inner(self.path, "scheduler")
        name = str(read_json(folder / SCHEDULER).get("_class_name"))
        kind = getattr(diffusers, name, None)
        if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
            raise RetracError(f"{folder} names no scheduler of diffusers: {name}")
        try:
            found: SchedulerMixin = getattr(diffusers, name).from_pretrained(
                folder, local_files_only=True
            )
        except Exception as error:  # each of diffusers' schedulers has its own
            raise RetracError(
                f"the scheduler in {folder} cannot be made ({first_line(error)})"
            ) from error
        return found

    @property
    def classes(self) -> int | None:
        """How many classes the network is told apart; None if it is told none."""
        of_dit = self.family == "DiTTransformer2DModel"
        count = self.config.get("num_embeds_ada_norm" if of_dit else "num_class_embeds")
        return None if count is None else int(count)

    @property
    def no_class(self) -> int | None:
        """The class that stands for none, of a network that has one."""
        return self.classes if self.family == "DiTTransformer2DModel" else None

    @property
    def class_numbers(self) -> dict[str, int]:
        """The number of each class by those names that no other class has, where the pipeline says
        them, as that of DiT does: `{"281": "tabby, tabby cat"}`."""
        named = read_json(self.path / "model_index.json").get("id2label") or {}
        all_names = [
            (name.strip(), int(number))
            for number, names in named.items()
            for name in str(names).split(",")
        ]
        times = Counter(name for name, _ in all_names)
        return {name: number for name, number in all_names if times[name] == 1}

    @property
    def encoder(self) -> Path | None:
        """The folder of what encodes images; None where the network sees pixels.

        Raises:
            RetracError: it is of a class that is not known here.
        """
        index = read_json(self.path / "model_index.json")
        name = next((name for name in ENCODERS if name in index), None)
        if name is None:
            return None
        config = read_config(self.path / name)
        kind = config["_class_name"]
        if config.get("latents_mean") is not None or config.get("latents_std") is not None:
            raise RetracError(
                f"the encoder of {self.path} shifts each channel by its own latents_mean and "
                "latents_std, which is not known here"
            )
        if kind != "AutoencoderKL":
            raise RetracError(
                f"images of {self.path} are encoded by {kind}: only AutoencoderKL is known"
            )
        return self.path / name

    @property
    def factor(self) -> int:
        """Pixels to a number of what the network sees, along each side."""
        folder = self.encoder
        return 1 if folder is None else factor_of(read_config(folder))

    @property
    def resolution(self) -> int | None:
        """Height and width of the images that it was made for; None where it does not say."""
        size = UNSAID.get(self.family, self.config.get("sample_size"))
        sides = {*size} if isinstance(size, list) else {size}
        side = sides.pop() if len(sides) == 1 else None
        return side * self.factor if isinstance(side, int) else None

    @property
    def text_parts(self) -> list[Path]:
        """The folders of what embeds texts."""
        index = read_json(self.path / "model_index.json")
        names = (name for name in index if name.startswith(TEXT_PARTS) and index[name][0])
        return [self.path / name for name in sorted(names)]

    def weights(self, folder: Path) -> list[Path]:
        """The files of a network's weights, in this pipeline or in what a training script saved:
        of a LoRA, where the folder has one.

        Raises:
            RetracError: there are none.
        """
        if self.is_lora(folder):
            return [folder / LORA]
        return weights_in(self._network_in(folder)).files

    def is_lora(self, folder: Path) -> bool:
        """Whether a folder holds no weights but those of a LoRA."""
        return (folder / LORA).is_file()

    def load(self, folder: Path) -> Any:
        """The network with the weights in a folder; with a LoRA, which alone is left trainable.

        Raises:
            RetracError: absent or damaged.
        """
        if not self.is_lora(folder):
            return self._load_network(folder)
        network = self._load_network(self.path)
        return adapted(self.whole(**{self.part: network}), self.part, folder / LORA)

    def for_texts(self) -> Any:
        """The pipeline with what embeds texts, on the CPU, and no other weights.

        Raises:
            RetracError: absent or damaged.
        """
        with torch.device("meta"):
            network = getattr(diffusers, self.family).from_config(self.config)
        names = [folder.name for folder in self.text_parts]
        found = self.whole(*names, **{self.part: network})
        for name in names:
            if isinstance(part := getattr(found, name), torch.nn.Module):
                part.requires_grad_(False)
        return found

    def whole(self, *parts: str, **given: Any) -> Any:
        """The pipeline as an object of diffusers, with these parts alone.

        Args:
            parts: names of those to be loaded.
            given: those that are there.

        Raises:
            RetracError: absent or damaged.
        """
        index = read_json(self.path / "model_index.json")
        others = {
            name: None
            for name, value in index.items()
            if isinstance(value, list) and name not in parts
        }
        try:
            with quiet():
                return getattr(diffusers, self.kind).from_pretrained(
                    self.path,
                    local_files_only=True,
                    use_safetensors=True,
                    torch_dtype=torch.float32,
                    variant=self._variant(parts),
                    **{**others, **given},
                )
        except Exception as error:  # each of the libraries beneath has its own
            raise RetracError(
                f"the pipeline {self.path} cannot be loaded ({first_line(error)}); it may be "
                "damaged"
            ) from error

    def _variant(self, parts: Sequence[str]) -> str | None:
        """What diffusers calls the precision of some parts; None where it has no name."""
        for name in parts:
            files = [file.name for file in (self.path / name).glob("*.safetensors*")]
            named = [
                variant
                for variant in VARIANTS
                if variant is not None and any(f".{variant}." in file for file in files)
            ]
            if named and all(f".{named[0]}." in file for file in files):
                return named[0]
        return None

    def _load_network(self, folder: Path) -> Any:
        inner = self._network_in(folder)
        return load_network(inner, self.family, weights_in(inner).variant)

    def _network_in(self, folder: Path) -> Path:
        return _inner(folder, self.part)

    def refuse_other(self, folder: Path) -> None:
        """Refuse weights that are not of this network.

        Raises:
            RetracError: of another network, or a LoRA of one.
        """
        if self.is_lora(folder):
            refuse_foreign(folder / LORA, self.part)
            return
        inner = self._network_in(folder)
        weights_in(inner)
        if _settings(read_config(inner)) != _settings(self.config):
            raise RetracError(
                f"the weights in {folder} are of another network than that of {self.path}: their "
                "config.json differ"
            )

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of all that decides losses beside the network's weights."""
        found = {
            "network's configuration": _settings(self.config),
            "scheduler": _settings(read_config(_inner(self.path, "scheduler"), SCHEDULER)),
        }
        if (folder := self.encoder) is not None:
            found["encoder"] = fingerprint(*weights_in(folder).files)
            found["encoder's configuration"] = _settings(read_config(folder))
        if numbers := self.class_numbers:
            found["names of classes"] = digest(sorted(numbers.items()))
        if self.told_text:
            files = (file for folder in self.text_parts for file in sorted(folder.glob("*.*")))
            found["text encoders and tokenizers"] = fingerprint(*files)
        return found


def factor_of(encoder: Mapping[str, Any]) -> int:
    """Pixels to a latent along each side, by an encoder's configuration."""
    return int(2 ** (len(encoder["block_out_channels"]) - 1))


def _inner(folder: Path, part: str) -> Path:
    """Where a part lies: in the subfolder of its name, or, in old pipelines, beside the index."""
    inner = folder / part
    return inner if inner.is_dir() else folder


def _refuse_unlike(path: Path, kind: str, part: str, family: str, index: dict[str, Any]) -> None:
    """Refuse a pipeline that lacks what its class has.

    Raises:
        RetracError: another network, or a part of what embeds texts is absent.
    """
    network, texts = PARTS[kind]
    if (part, family) != network:
        raise RetracError(f"{path} is a {kind} with a {family}: a {network[1]} is needed")
    for name in texts:
        if not (index.get(name) or [None])[0] or not (path / name).is_dir():
            raise RetracError(f"{path} is a {kind} without its {name}, which embeds texts")


def _settings(config: dict[str, Any]) -> str:
    return digest(sorted(unusual(config).items()))
