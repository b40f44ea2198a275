"""Which rule serves which layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from retrac.gradients.gradient import Gradient


class Call(NamedTuple):
    """The arguments of one call of a layer."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Rule = Callable[[Any, Call, Tensor], dict[str, Gradient]]
"""`(layer, its call, gradient of its output [B, …]) -> {parameter's own name: its gradient}`."""

_RULES: dict[type[nn.Module], Rule] = {}


def rule(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a rule for layers of these types."""

    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(types, function))
        return function

    return register


def rule_for(layer: nn.Module) -> Rule:
    """Find the rule of a layer: that of its type or of a parent whose `forward` it still has."""
    from retrac.gradients.rules.fallback import by_vmap

    for base in type(layer).__mro__:
        if base in _RULES and type(layer).forward is base.forward:
            return _RULES[base]
    return by_vmap
