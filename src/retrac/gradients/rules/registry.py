"""Which rule serves which layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from retrac.gradients.gradient import Gradient


class Call(NamedTuple):
    """One call of a layer.

    Attributes:
        args: the arguments by position.
        kwargs: the arguments by name.
        kept: what the rule asked to keep of the forward pass.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    kept: Any = None

    @property
    def input(self) -> Tensor:
        """The only argument, however it was given."""
        (argument,) = (*self.args, *self.kwargs.values())
        return argument


Rule = Callable[[Any, Call, Tensor], dict[str, Gradient]]
"""`(layer, its call, gradient of its output [B, …]) -> {parameter's own name: its gradient}`."""

Keep = Callable[[Tensor], Any]
"""What to keep of a layer's output, with its graph, until the gradient arrives."""

_RULES: dict[type[nn.Module], Rule] = {}
_KEEPS: dict[Rule, Keep] = {}

_COMPUTING = ("forward", "_conv_forward")
"""The methods in which a layer with a rule computes its output."""


def rule(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a rule for layers of these types."""

    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(types, function))
        return function

    return register


def keeping(keep: Keep) -> Callable[[Rule], Rule]:
    """Let a rule have more of the forward pass than the layer's inputs, as `call.kept`."""

    def register(function: Rule) -> Rule:
        _KEEPS[function] = keep
        return function

    return register


def kept_by(function: Rule, output: Tensor) -> Any:
    """What a rule wants kept of an output."""
    return _KEEPS[function](output) if function in _KEEPS else None


def rule_for(layer: nn.Module) -> Rule:
    """Find the rule of a layer: that of its type or of a parent that it still computes like."""
    from retrac.gradients.rules.fallback import by_vmap

    for base in type(layer).__mro__:
        if base in _RULES and _computes_like(base, layer):
            return _RULES[base]
    return by_vmap


def _computes_like(base: type[nn.Module], layer: nn.Module) -> bool:
    """Whether neither the layer's class nor the layer itself overrides how `base` computes."""
    return all(
        getattr(getattr(layer, name), "__func__", None) is getattr(base, name)
        for name in _COMPUTING
        if hasattr(base, name)
    )
