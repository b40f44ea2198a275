"""Any layer without a rule of its own: `torch.func.vmap` over that one layer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from retrac.gradients.gradient import Dense, Gradient
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call, keeping


@keeping(lambda output: output.detach().clone())
def by_vmap(layer: nn.Module, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Differentiate the layer once per sample, all at once.

    Tensors among the arguments whose first axis is the batch are taken apart; all others are
    shared by the samples. That this was right is checked: the samples' outputs must be those that
    the layer gave for the whole batch.

    Raises:
        ValueError: the layer does not give a sample by itself what it gave it in the batch.
    """
    batch = len(output_gradient)
    bare = _Bare(layer)
    precision = output_gradient.dtype
    constants = {
        name: each.detach().to(precision) if each.is_floating_point() else each
        for name, each in (
            *bare.named_parameters(remove_duplicate=False),
            *bare.named_buffers(remove_duplicate=False),
        )
    }
    own = {
        name: constants.pop(f"layer.{name}")
        for name, parameter in layer._parameters.items()
        if parameter is not None and parameter.is_floating_point()
    }
    leaves, spec = tree_flatten((call.args, call.kwargs))
    mapped = [isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == batch for leaf in leaves]

    def output_along_gradient(
        parameters: dict[str, Tensor], gradient: Tensor, *own_leaves: Tensor
    ) -> tuple[Tensor, Tensor]:
        given = iter(own_leaves)
        inputs: Any = tree_unflatten(
            [
                next(given).unsqueeze(0) if taken else leaf
                for leaf, taken in zip(leaves, mapped, strict=True)
            ],
            spec,
        )
        args, kwargs = inputs
        named = {f"layer.{name}": parameter for name, parameter in parameters.items()}
        output = torch.func.functional_call(
            bare, {**constants, **named}, args, kwargs, tie_weights=False
        )
        if output.shape != (1, *gradient.shape):
            raise ValueError(f"one sample alone gives {tuple(output.shape)}")
        output = output.squeeze(0)
        return (output * gradient).sum(), output

    by_sample = torch.func.vmap(
        torch.func.grad(output_along_gradient, has_aux=True),
        in_dims=(None, 0, *(0 for taken in mapped if taken)),
    )
    taken = [leaf for leaf, is_taken in zip(leaves, mapped, strict=True) if is_taken]
    gradients, output = by_sample(own, output_gradient, *taken)
    if not _agree(output.to(call.kept.dtype), call.kept):
        raise ValueError(
            "one sample alone gives another output than in the batch: the layer mixes samples, is "
            "random, or changes with every call"
        )
    return {
        name: Dense(values.reshape(batch, -1), Layout.of(own[name]))
        for name, values in gradients.items()
    }


class _Bare(nn.Module):
    """A layer without its hooks."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.forward(*args, **kwargs)


def _agree(again: Tensor, output: Tensor) -> bool:
    """Whether two tensors are equal up to what rounding and another order of sums can do."""
    tolerance = torch.finfo(output.dtype).eps ** 0.5
    scale = output.abs().nan_to_num(posinf=0).amax().item() if output.numel() else 0.0
    return torch.allclose(again, output, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
