"""Per-sample gradients of one layer at a time: a pure function for each type of layer."""

from retrac.gradients.rules import conv, embedding, linear, norm
from retrac.gradients.rules.registry import rule_for

__all__ = ["conv", "embedding", "linear", "norm", "rule_for"]
