"""Where to compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

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


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Without tf32, in which cuDNN convolves float32 unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def placed(network: Any, device: torch.device, precision: str) -> Any:
    """A network on a device, with its weights in a precision.

    Args:
        network: any.
        device: where.
        precision: float64, float32, tf32 (products of float32 on CUDA by shorter numbers),
            bfloat16 or float16.

    Raises:
        RetracError: tf32 elsewhere than on CUDA, or float64 on MPS.
    """
    if precision == "float64" and device.type == "mps":
        raise RetracError("--precision float64 is not of mps devices: use --device cpu")
    if precision == "tf32" and device.type != "cuda":
        raise RetracError("--precision tf32 is of CUDA devices: use float32 here")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    weights = torch.float32 if precision == "tf32" else getattr(torch, precision)
    return nn.Module.to(network, device, weights)  # diffusers' own would warn of nothing here
