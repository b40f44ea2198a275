"""Folders of trained models in diffusers' layouts: whole pipelines, and what training scripts save
on the way."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from retrac.diffusion.calls import CALLS
from retrac.diffusion.model import load_network
from retrac.errors import RetracError
from retrac.files import read_json

NETWORKS = ("unet", "transformer")
SUPPORTED = ("UNet2DModel",)
"""Families whose samples are the pixels themselves."""


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
            known = "its network is known, but not how its samples are encoded"
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
        count = self.config.get("num_class_embeds")
        return None if count is None else int(count)

    def weights(self, folder: Path) -> Path:
        """The file of a network's weights, in this pipeline or in what a training script saved.

        Raises:
            RetracError: there is none.
        """
        places = [folder / self.part, folder]
        for place in places:
            found = sorted(place.glob("diffusion_pytorch_model*.safetensors"))
            if found:
                return found[0]
        raise RetracError(
            f"{folder} holds no weights: there is no diffusion_pytorch_model.safetensors in it or "
            f"in its folder {self.part!r}"
        )

    def load(self, folder: Path) -> Any:
        """The network with the weights in a folder.

        Raises:
            RetracError: absent or damaged.
        """
        return load_network(self.weights(folder).parent, self.family)


def fingerprint(file: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(2**24):
            digest.update(piece)
    return digest.hexdigest()
