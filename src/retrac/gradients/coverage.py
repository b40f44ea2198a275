"""Refuses models of which some parameter's gradient would be missed or is not defined, by name."""

import torch
from torch import Tensor, nn

from retrac.errors import RetracError


class CoverageError(RetracError):
    """Per-sample gradients of this model would be incomplete or undefined."""


def describe(name: str, layer: nn.Module) -> str:
    """Name a layer in a message."""
    return f"layer {name!r} ({type(layer).__name__})" if name else f"the {type(layer).__name__}"


def refuse_mixing_layers(model: nn.Module) -> None:
    """Refuse layers that make one sample's gradient depend on the others.

    Raises:
        CoverageError: batch normalisation by the statistics of the batch, or an embedding that
            scales its gradient by how often the batch looked a row up.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            remedy = (
                "keeps no running statistics; replace it"
                if module.running_mean is None
                else "is in training mode; call model.eval() first"
            )
            raise CoverageError(
                f"{describe(name, module)} normalises over the batch, so a sample has no gradient "
                f"of its own: it {remedy}"
            )
        if isinstance(module, nn.Embedding) and module.scale_grad_by_freq:
            raise CoverageError(
                f"{describe(name, module)} scales gradients by frequency in the batch, so a "
                "sample has no gradient of its own; set scale_grad_by_freq to False"
            )


def refuse_opaque_layers(model: nn.Module) -> None:
    """Refuse layers into whose calls one cannot look.

    Raises:
        CoverageError: TorchScript with trainable parameters.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and any(
            parameter.requires_grad for parameter in module.parameters()
        ):
            raise CoverageError(
                f"{describe(name, module)} is TorchScript, whose layers cannot be seen at work; "
                "use the module that it was scripted from, or freeze it with requires_grad_(False)"
            )


def refuse_other_output(name: str, layer: nn.Module, output: object) -> None:
    """Refuse a layer that returns anything but one tensor.

    Raises:
        CoverageError: it returns something else.
    """
    if not isinstance(output, Tensor):
        raise CoverageError(
            f"{describe(name, layer)} owns trainable parameters and returns "
            f"{type(output).__name__}; only layers that return one tensor can be taken apart by "
            "sample: freeze the layer's own parameters with requires_grad_(False)"
        )


def refuse_other_batch(name: str, layer: nn.Module, shape: tuple[int, ...], batch: int) -> None:
    """Refuse a layer whose output does not have the samples on the first axis.

    Raises:
        CoverageError: another first axis.
    """
    if not shape or shape[0] != batch:
        raise CoverageError(
            f"{describe(name, layer)} returns shape {shape} for {batch} losses: its first axis "
            "must be the samples; reshape around the layer, or freeze its parameters with "
            "requires_grad_(False)"
        )
