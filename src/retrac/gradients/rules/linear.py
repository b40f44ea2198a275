"""Linear layers."""

from torch import Tensor, nn

from retrac.gradients.gradient import Dense, Factored, Gradient
from retrac.gradients.inputs import Plain
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call, rule


@rule(nn.Linear)
def linear(layer: nn.Linear, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """`y = W x + c` at every position: `∂W = Σ_p b_p a_pᵀ`, `∂c = Σ_p b_p`."""
    batch, inputs, outputs = len(output_gradient), layer.in_features, layer.out_features
    a = call.input.reshape(batch, 1, -1, inputs)
    b = output_gradient.reshape(batch, 1, -1, outputs)
    gradients: dict[str, Gradient] = {"weight": Factored(Plain(a), b, Layout.of(layer.weight))}
    if layer.bias is not None and layer.bias.requires_grad:
        gradients["bias"] = Dense(b.sum((1, 2)), Layout.of(layer.bias))
    return gradients
