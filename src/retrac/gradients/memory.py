"""How much memory a pass takes, measured on a small one."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from retrac.gradients.precision import summed_in
from retrac.gradients.tape import per_sample_gradients

TEMPORARY = 1.5
"""Allowance for what lives only during an operation: gradients on their way, padded inputs."""


def activation_bytes(model: nn.Module, per_sample_losses: Callable[[], Tensor]) -> int:
    """Bytes that forward and backward need per sample, beyond weights and directions.

    Args:
        model: as for `dots_and_norms`.
        per_sample_losses: runs the forward pass on a small batch of B samples.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}  # holding the storages, so that no address is given out twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    def keep_inputs(module: nn.Module, args: tuple[Any, ...]) -> None:
        for leaf in tree_leaves(args):
            if isinstance(leaf, Tensor):
                keep(leaf)

    owners = [
        module
        for module in model.modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    ]

    def watched_losses() -> Tensor:
        with ExitStack() as stack:  # not during backward: vmap allows no hooks on saved tensors
            stack.enter_context(saved_tensors_hooks(keep, lambda tensor: tensor))
            for module in owners:
                stack.callback(module.register_forward_pre_hook(keep_inputs).remove)
            return per_sample_losses()

    losses = per_sample_gradients(model, watched_losses, lambda name, gradient: None)
    total = sum(storage.nbytes() for storage in kept.values())
    return int(TEMPORARY * total / len(losses)) + 1


def weight_bytes(model: nn.Module) -> int:
    """Bytes of one gradient of all trainable parameters."""
    return sum(
        p.numel() * summed_in(p.dtype).itemsize for p in model.parameters() if p.requires_grad
    )


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, trainable or not."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def free_bytes(device: torch.device) -> int:
    """Memory that could be taken now on a device; on the CPU, of the machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    import psutil  # accelerate needs it, so it is there

    return int(psutil.virtual_memory().available)
