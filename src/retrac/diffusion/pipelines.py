"""Folders of trained models in diffusers' layouts: whole pipelines, and what training scripts save
on the way."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from retrac.diffusion.calls import CALLS
from retrac.diffusion.model import load_network
from retrac.errors import RetracError
from retrac.files import read_json

NETWORKS = ("unet", "transformer")
WEIGHTS = "diffusion_pytorch_model.safetensors"
ENCODERS = ("vae", "vqvae")
SUPPORTED = ("UNet2DModel", "DiTTransformer2DModel")
"""Families that need no text."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's folder.

    Attributes:
        path: of it.
        part: the name of its network's subfolder.
        family: the network's class.
        config: its configuration.
    """

    path: Path
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
        config = read_json(path / part / "config.json")
        family = str(config.get("_class_name"))
        if family not in SUPPORTED:
            known = "its network is known, but not how its text is embedded"
            raise RetracError(
                f"pipelines of {family} cannot be adopted yet"
                f"{f' ({known})' if family in CALLS else ''}: {', '.join(SUPPORTED)} can"
            )
        return Pipeline(path, part, family, config)

    @property
    def scheduler(self) -> SchedulerMixin:
        """Its noise schedule.

        Raises:
            RetracError: absent, or of no class of diffusers.
        """
        folder = self.path / "scheduler"
        name = str(read_json(folder / "scheduler_config.json").get("_class_name"))
        kind = getattr(diffusers, name, None)
        if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
            raise RetracError(f"{folder} names no scheduler of diffusers: {name}")
        found: SchedulerMixin = getattr(diffusers, name).from_pretrained(
            folder, local_files_only=True
        )
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
    def encoder(self) -> Path | None:
        """The folder of what encodes images; None where the network sees pixels.

        Raises:
            RetracError: it is of a class that is not known here.
        """
        index = read_json(self.path / "model_index.json")
        name = next((name for name in ENCODERS if name in index), None)
        if name is None:
            return None
        kind = read_json(self.path / name / "config.json").get("_class_name")
        if kind != "AutoencoderKL":
            raise RetracError(
                f"images of {self.path} are encoded by {kind}: only AutoencoderKL is known"
            )
        return self.path / name

    def weights(self, folder: Path) -> Path:
        """The file of a network's weights, in this pipeline or in what a training script saved.

        Raises:
            RetracError: there is none.
        """
        inner = folder / self.part
        return weights_in(inner if inner.is_dir() else folder)

    def load(self, folder: Path) -> Any:
        """The network with the weights in a folder.

        Raises:
            RetracError: absent or damaged.
        """
        return load_network(self.weights(folder).parent, self.family)


def weights_in(folder: Path) -> Path:
    """The file of weights in a folder.

    Raises:
        RetracError: there is none.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise RetracError(f"{folder} holds no weights: it has no {WEIGHTS}, in one piece")
    return file


def fingerprint(file: Path) -> str:
    """SHA-256 of a file; read again where its size or time is another."""
    about = file.stat()
    return _fingerprint(file, about.st_size, about.st_mtime_ns)


@cache
def _fingerprint(file: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(2**24):
            digest.update(piece)
    return digest.hexdigest()
