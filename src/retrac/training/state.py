"""A point in training from which it can go on, in files that diffusers and safetensors read.

A folder holds the network as diffusers saves it (`config.json`, `diffusion_pytorch_model.
safetensors`), its scheduler (`scheduler_config.json`), the moving average in `ema/`, the optimiser
in `optimizer.safetensors`, and `state.json`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin, UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from retrac.diffusion.model import load_unet
from retrac.errors import RetracError
from retrac.files import PARTIAL, read_json, write_json, write_whole

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Point:
    """Where training stands: `epoch` whole epochs and `step` optimiser steps are done."""

    step: int
    epoch: int
    learning_rate: float
    scaler: dict[str, Any]


def save_state(
    folder: Path,
    point: Point,
    model: UNet2DModel,
    scheduler: SchedulerMixin,
    optimizer: Optimizer,
    ema: EMAModel | None,
    add: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write the folder, whole or not at all.

    Args:
        folder: where to.
        point: where training stands.
        model, scheduler, optimizer, ema: what it stands with.
        add: writes what else belongs to it into the folder.

    Raises:
        RetracError: no space left.
    """
    with write_whole(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        scheduler.save_pretrained(temporary)
        if ema is not None:
            parameters = list(model.parameters())
            ema.store(parameters)
            ema.copy_to(parameters)
            model.save_pretrained(temporary / "ema", safe_serialization=True)
            ema.restore(parameters)
        save_file(optimizer_tensors(optimizer), temporary / OPTIMIZER)
        add(temporary)
        write_json(
            temporary / STATE,
            {
                "step": point.step,
                "epoch": point.epoch,
                "learning_rate": point.learning_rate,
                "scaler": point.scaler,
                "ema_step": ema.optimization_step if ema is not None else None,
            },
        )


def whole_states(folder: Path) -> list[Path]:
    """The folders within `folder` that hold a whole state; what is half-written does not count."""
    return [
        path for path in folder.glob("*") if path.suffix != PARTIAL and (path / STATE).is_file()
    ]


def read_point(folder: Path) -> Point:
    """Where the training stood whose state is in a folder."""
    content = read_json(folder / STATE)
    try:
        return Point(
            int(content["step"]),
            int(content["epoch"]),
            float(content["learning_rate"]),
            dict(content["scaler"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RetracError(f"{folder / STATE} is damaged ({error!r})") from error


@torch.no_grad()
def load_state(
    folder: Path,
    model: UNet2DModel,
    shape: tuple[int, int, int],
    optimizer: Optimizer,
    ema: EMAModel | None,
) -> Point:
    """Put the state of a folder into a fresh model, optimiser and moving average.

    Raises:
        RetracError: a file is absent or damaged; it is named.
    """
    point = read_point(folder)
    model.load_state_dict(load_unet(folder, shape).state_dict())
    load_optimizer_tensors(optimizer, read_tensors(folder / OPTIMIZER))
    if ema is not None:
        average = load_unet(folder / "ema", shape)
        for shadow, parameter in zip(ema.shadow_params, average.parameters(), strict=True):
            shadow.copy_(parameter)
        ema.optimization_step = read_json(folder / STATE)["ema_step"]
    return point


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by `parameter number/name`."""
    return {
        f"{number}/{name}": tensor.detach().cpu().contiguous()
        for number, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    content = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, tensor in tensors.items():
        number, name = key.split("/")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            # In the parameter's memory format: rounding may depend on it.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, device="cpu").copy_(tensor)
        state.setdefault(int(number), {})[name] = tensor
    content["state"] = state
    optimizer.load_state_dict(content)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        RetracError: absent or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has its own, and raises OSError too
        raise RetracError(f"{path} cannot be read ({error}); it may be damaged") from error


def make_ema(model: UNet2DModel, decay: float | None) -> EMAModel | None:
    """Build the moving average of a model's weights, if there is to be one."""
    return EMAModel(model.parameters(), decay=decay, foreach=True) if decay else None
