"""Refuses models of which some parameter's gradient would be missed, and names the parameter."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from retrac.errors import RetracError


WITHOUT_GRADIENT = {
    Tensor.detach,
    Tensor.data.__get__,  # type: ignore[attr-defined]
    Tensor.grad.__get__,  # type: ignore[attr-defined]
}
"""Ways to read a parameter through which no gradient flows back."""


class CoverageError(RetracError):
    """Per-sample gradients of this model would be incomplete or undefined."""


class OutsideUses(TorchFunctionMode):
    """Watches a forward pass for parameters used outside the `forward` of a layer that owns them.

    Such a use (a tied weight in `F.linear(x, embedding.weight)`, `nn.MultiheadAttention`'s output
    projection) passes by the hooks, so its part of the gradient would be silently missing.

    Args:
        owners: for each watched parameter, the modules that own it.
        running: the modules whose `forward` is under way.
        names: each watched parameter's name.
    """

    def __init__(
        self,
        owners: Mapping[Tensor, Iterable[nn.Module]],
        running: list[nn.Module],
        names: Mapping[Tensor, str],
    ) -> None:
        super().__init__()
        self._owners = owners
        self._running = running
        self._names = names

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do as asked, and check the arguments if numbers of a parameter went into the result."""
        result = func(*args, **(kwargs or {}))
        if (
            nn.Parameter in types
            and func not in WITHOUT_GRADIENT
            and any(isinstance(leaf, Tensor) for leaf in tree_leaves(result))
        ):
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, nn.Parameter) and leaf in self._owners:
                    self._check(leaf)
        return result

    def _check(self, parameter: nn.Parameter) -> None:
        if not any(owner in self._running for owner in self._owners[parameter]):
            raise CoverageError(
                f"parameter {self._names[parameter]!r} is used outside the forward of its layer, "
                "where its per-sample gradient cannot be seen; call the layer itself, or freeze "
                "the parameter with requires_grad_(False)"
            )


def refuse_mixing_layers(model: nn.Module) -> None:
    """Refuse layers that make one sample's loss depend on the others.

    Raises:
        CoverageError: batch normalisation in training mode.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise CoverageError(
                f"layer {name!r} ({type(module).__name__}) normalises over the batch, so a "
                "sample has no gradient of its own; call model.eval() first"
            )


def refuse_other_batch(name: str, layer: nn.Module, output: Any, batch: int) -> None:
    """Refuse a layer whose output does not have the samples on its first axis.

    Raises:
        CoverageError: another first axis, or an output that is no tensor.
    """
    kind = type(layer).__name__
    if not isinstance(output, torch.Tensor):
        raise CoverageError(
            f"layer {name!r} ({kind}) owns parameters and returns {type(output).__name__}; "
            "only layers that return one tensor can be taken apart by sample"
        )
    if output.dim() == 0 or len(output) != batch:
        raise CoverageError(
            f"layer {name!r} ({kind}) returns shape {tuple(output.shape)} for a batch of {batch}: "
            "its first axis must be the samples"
        )
