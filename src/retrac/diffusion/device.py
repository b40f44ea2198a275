"""Where to compute."""

import torch

from retrac.errors import RetracError


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on.

    Raises:
        RetracError: asked for, but not there.
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = "cuda" if there["cuda"] else "cpu"
    if not there[name]:
        raise RetracError(f"there is no {name} device here; use --device auto")
    return torch.device(name)
