"""Any layer without a rule of its own: `torch.func.vmap` over that one layer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from retrac.gradients.gradient import Dense, Gradient
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call


def by_vmap(layer: nn.Module, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Differentiate the layer once per sample, all at once.

    Tensors among the arguments whose first axis is the batch are taken apart; all others are
    shared by the samples.
    """
    batch = len(output_gradient)
    own = {name: parameter.detach() for name, parameter in layer.named_parameters(recurse=False)}
    leaves, spec = tree_flatten((call.args, call.kwargs))
    mapped = [isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == batch for leaf in leaves]

    def output_along_gradient(
        parameters: dict[str, Tensor], gradient: Tensor, *own_leaves: Tensor
    ) -> Tensor:
        given = iter(own_leaves)
        inputs: Any = tree_unflatten(
            [
                next(given).unsqueeze(0) if taken else leaf
                for leaf, taken in zip(leaves, mapped, strict=True)
            ],
            spec,
        )
        args, kwargs = inputs
        output = torch.func.functional_call(layer, parameters, args, kwargs)
        return (output.squeeze(0) * gradient).sum()

    by_sample = torch.func.vmap(
        torch.func.grad(output_along_gradient),
        in_dims=(None, 0, *(0 for taken in mapped if taken)),
    )
    taken = [leaf for leaf, is_taken in zip(leaves, mapped, strict=True) if is_taken]
    gradients = by_sample(own, output_gradient, *taken)
    return {
        name: Dense(values.flatten(1), Layout.of(own[name])) for name, values in gradients.items()
    }
