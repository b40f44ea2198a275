"""Records what every layer saw in a forward pass and turns one backward pass into per-sample
gradients, layer by layer, freeing each as soon as it is consumed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from retrac.gradients.coverage import (
    CoverageError,
    OutsideUses,
    refuse_mixing_layers,
    refuse_other_batch,
)
from retrac.gradients.gradient import Gradient
from retrac.gradients.rules import rule_for
from retrac.gradients.rules.registry import Call

Consumer = Callable[[str, Gradient], None]
"""Receives a parameter's name and the whole of its per-sample gradients."""


def per_sample_gradients(
    model: nn.Module, per_sample_losses: Callable[[], Tensor], consume: Consumer
) -> Tensor:
    """Run forward and backward once; hand each trainable parameter's gradients to `consume`.

    Gradients with respect to the weights summed over the batch are never formed. A parameter that
    the forward pass does not use has no gradient and is not handed on.

    Args:
        model: any module whose layers have the samples on the first axis.
        per_sample_losses: runs the forward pass and returns the losses `[B]`.
        consume: called once per parameter, in the order in which backward completes them.

    Returns:
        The losses `[B]`, detached.

    Raises:
        CoverageError: some parameter's gradient would be incomplete; it is named.
    """
    refuse_mixing_layers(model)
    tape = _Tape(model, consume)
    with _frozen(tape.parameters), torch.enable_grad():
        with tape.recording(), OutsideUses(tape.owners, tape.running, tape.names):
            losses = per_sample_losses()
        if losses.dim() != 1:
            raise ValueError(f"per_sample_losses must return [B] losses, not {tuple(losses.shape)}")
        tape.check_batch(len(losses))
        if losses.requires_grad:
            losses.sum().backward()
        tape.flush()
    return losses.detach()


@dataclass
class _Use:
    """One call of a layer, waiting for its output's gradient."""

    layer: nn.Module
    call: Call
    versions: list[int]


class _Tape:
    def __init__(self, model: nn.Module, consume: Consumer) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        trainable = set(self.parameters)
        self.names = {p: name for name, p in model.named_parameters() if p in trainable}
        self.owners: dict[Tensor, list[nn.Module]] = {p: [] for p in self.parameters}
        self.layer_names: dict[nn.Module, str] = {}
        for name, module in model.named_modules():
            for parameter in set(module._parameters.values()) & trainable:
                self.owners[parameter].append(module)
                self.layer_names[module] = name
        self.running: list[nn.Module] = []
        self._consume = consume
        self._recording = False
        self._shapes: list[tuple[nn.Module, Any]] = []
        self._waiting: dict[Tensor, int] = dict.fromkeys(self.parameters, 0)
        self._pending: dict[Tensor, Gradient] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Hook every layer that owns trainable parameters."""
        handles: list[Any] = []
        for layer in self.layer_names:
            handles.append(layer.register_forward_pre_hook(self._before))
            handles.append(layer.register_forward_hook(self._after, with_kwargs=True))
        self._recording = True
        try:
            yield
        finally:
            self._recording = False
            for handle in handles:
                handle.remove()

    def check_batch(self, batch: int) -> None:
        """Refuse layers that do not have the samples on the first axis."""
        for layer, output in self._shapes:
            refuse_other_batch(self.layer_names[layer], layer, output, batch)
        self._shapes.clear()

    def flush(self) -> None:
        """Hand on what waits for uses that turned out not to lead to the loss."""
        for parameter in list(self._pending):
            self._hand_on(parameter)

    def _before(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self.running.append(layer)

    def _after(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        self.running.remove(layer)
        self._shapes.append((layer, output))
        if not isinstance(output, Tensor):
            return output  # check_batch refuses it
        if not output.requires_grad:
            # With weights frozen, the first layers would be cut off from backward; a copy, for
            # what follows may work in place, which a leaf forbids.
            output = output.requires_grad_().clone()
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        use = _Use(layer, _detached(Call(args, kwargs)), [leaf._version for leaf in leaves])
        for parameter in self._own(layer).values():
            self._waiting[parameter] += 1
        output.register_hook(partial(self._arrive, use))
        return output

    def _arrive(self, use: _Use, output_gradient: Tensor) -> None:
        layer = use.layer
        leaves = [leaf for leaf in tree_leaves(use.call) if isinstance(leaf, Tensor)]
        if [leaf._version for leaf in leaves] != use.versions:
            raise CoverageError(
                f"the input of layer {self.layer_names[layer]!r} was overwritten in place after "
                "the layer had read it; make that operation out of place"
            )
        gradients = rule_for(layer)(layer, use.call, output_gradient.detach())
        use.call = Call((), {})  # frees the inputs
        for name, parameter in self._own(layer).items():
            earlier = self._pending.get(parameter)
            gradient = gradients[name]
            self._pending[parameter] = gradient if earlier is None else earlier.add(gradient)
            self._waiting[parameter] -= 1
        del gradients
        for parameter in self._own(layer).values():
            if self._waiting[parameter] == 0:
                self._hand_on(parameter)

    def _hand_on(self, parameter: Tensor) -> None:
        self._consume(self.names[parameter], self._pending.pop(parameter))

    def _own(self, layer: nn.Module) -> dict[str, Tensor]:
        return {
            name: parameter
            for name, parameter in layer._parameters.items()
            if parameter is not None and parameter in self.owners
        }


def _detached(call: Call) -> Call:
    """The same arguments, without their autograd history (which would keep the graph alive)."""

    def detach(leaf: Any) -> Any:
        return leaf.detach() if isinstance(leaf, Tensor) else leaf

    return Call(
        tuple(detach(argument) for argument in call.args),
        {name: detach(argument) for name, argument in call.kwargs.items()},
    )


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Without gradients of their own, so that autograd does not form what nobody needs."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
