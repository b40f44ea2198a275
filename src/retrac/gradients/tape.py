"""Records what every layer saw in a forward pass and turns backward passes into per-sample
gradients, layer by layer, freeing each as soon as it is consumed."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from retrac.gradients.coverage import (
    CoverageError,
    describe,
    refuse_mixing_layers,
    refuse_opaque_layers,
    refuse_other_batch,
    refuse_other_output,
)
from retrac.gradients.gradient import Gradient
from retrac.gradients.precision import loss_scale, summed_in
from retrac.gradients.rules import rule_for
from retrac.gradients.rules.registry import Call, kept_by

Consumer = Callable[[str, Gradient], None]
"""Receives a parameter's name and the whole of its per-sample gradients."""

Losses = Tensor | Sequence[Tensor]
"""One number a sample, `[B]`; or R of them, in a sequence or as `[R, B]`."""


def per_sample_gradients(
    model: nn.Module,
    per_sample_losses: Callable[[], Losses],
    consume: Consumer | Sequence[Consumer],
) -> Tensor:
    """Run forward once, and backward for each loss; hand each trainable parameter's gradients on.

    Gradients with respect to the weights summed over the batch are never formed. A parameter that
    the forward pass does not use, or on which a loss does not depend, has no gradient and is not
    handed on.

    Args:
        model: any module whose layers have the samples on the first axis, and of which no sample's
            loss depends on another sample.
        per_sample_losses: runs the forward pass and returns the losses, `[B]`. If there are R of
            them, a sequence keeps them apart to the end; a backward pass from one row of a tensor
            `[R, B]` takes zeros along the paths of the others.
        consume: called once per parameter, in the order in which backward completes them; for R
            losses a consumer for each.

    Returns:
        The losses `[B]` or `[R, B]`, detached.

    Raises:
        CoverageError: some parameter's gradient would be incomplete or undefined; it, or its
            layer, is named. Or a loss depends on no trainable parameter.
        ValueError: the losses are not one number a sample, or not as many as consumers.
    """
    consumers = [consume] if callable(consume) else consume
    with recorded(model, per_sample_losses) as tape:
        if len(consumers) != len(tape.losses):
            raise ValueError(f"{len(consumers)} consumers for {len(tape.losses)} losses")
        for each in consumers:
            tape.backward(each)
    return tape.losses[0] if callable(consume) else torch.stack(tape.losses)


@contextmanager
def recorded(
    model: nn.Module, per_sample_losses: Callable[[], Losses]
) -> Iterator["ConstantWeightsTape"]:
    """Run the forward pass; within the body, `tape.backward` differentiates one loss after another.

    Takes and raises what `per_sample_gradients` does.
    """
    refuse_mixing_layers(model)
    refuse_opaque_layers(model)
    tape = ConstantWeightsTape(model)
    with tape.hooked(), torch.enable_grad():
        tape.measure(per_sample_losses)
        yield tape


@contextmanager
def live_tape(model: nn.Module, consume: Consumer, names: Container[str]) -> Iterator["LiveTape"]:
    """Hand per-sample gradients on from somebody else's backward pass, such as a training step.

    Weights keep their own gradients, bit for bit. Within the body, run the forward pass by
    `tape.record`, then backward, then `tape.flush`.

    A parameter that is used outside its layer is not noticed here: run `per_sample_gradients` once
    beforehand.

    Args:
        model: as for `per_sample_gradients`.
        consume: likewise; gradients are those of whatever is differentiated.
        names: of the parameters to hand on.

    Raises:
        CoverageError: as `per_sample_gradients`, but for such use.
    """
    refuse_mixing_layers(model)
    refuse_opaque_layers(model)
    tape = LiveTape(model, consume, names)
    with tape.hooked():
        yield tape


@dataclass
class _Use:
    """One call of a layer, waiting for its output's gradient."""

    layer: nn.Module
    parameters: dict[str, nn.Parameter]
    call: Call
    tensors: list[Tensor]
    versions: list[int]

    @staticmethod
    def of(
        layer: nn.Module,
        parameters: dict[str, nn.Parameter],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> "_Use":
        """Keep the arguments without their autograd history, which would keep the graph alive."""
        if not kwargs and all(isinstance(argument, Tensor) for argument in args):  # most layers
            args = tuple(argument.detach() for argument in args)
            tensors = list(args)
        else:
            args, kwargs = tree_map(_detached, (args, kwargs))
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        versions = [tensor._version for tensor in tensors]
        return _Use(layer, parameters, Call(args, kwargs), tensors, versions)

    @property
    def was_overwritten(self) -> bool:
        """Whether an argument is no longer what the layer saw, or was given back."""
        return [tensor._version for tensor in self.tensors] != self.versions

    def call_in(self, precision: torch.dtype) -> Call:
        """The call in the precision of gradients, from which autocast and half-precision weights
        take it."""
        if all(tensor.dtype == precision for tensor in self.tensors):
            return self.call
        args, kwargs = tree_map(partial(_cast, precision), (self.call.args, self.call.kwargs))
        return self.call._replace(args=args, kwargs=kwargs)

    def free(self) -> None:
        """Give the arguments' memory back."""
        self.call, self.tensors = Call((), {}), []


class LiveTape:
    """Records what layers see, and hands their gradients on as backward passes them."""

    scale = 1.0
    """By how much larger than the losses is what is differentiated."""
    last = True
    """Whether no other backward pass is to come."""

    def __init__(self, model: nn.Module, consume: Consumer, names: Container[str]) -> None:
        self._names = {
            parameter: name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name in names
        }
        self._layers = {module: name for name, module in model.named_modules() if self._own(module)}
        self._consume = consume
        self._recording = False
        self._applying_rule = False
        self._running: list[_Use] = []
        self._shapes: list[tuple[nn.Module, tuple[int, ...]]] = []
        self._uses: dict[Tensor, int] = dict.fromkeys(self._names, 0)
        self._arrived: dict[Tensor, int] = dict.fromkeys(self._names, 0)
        self._pending: dict[nn.Parameter, Gradient] = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hook every layer that owns a trainable parameter."""
        with ExitStack() as stack:
            for layer in self._layers:
                # Innermost: other hooks may change what goes in and what comes out.
                before = layer.register_forward_pre_hook(self._before, with_kwargs=True)
                stack.callback(before.remove)
                after = layer.register_forward_hook(self._after, prepend=True)
                stack.callback(after.remove)
            yield

    def record(self, per_sample_losses: Callable[[], Tensor]) -> Tensor:
        """Run the forward pass and check that it can be taken apart by sample."""
        (losses,) = self._record(lambda: [per_sample_losses()])
        return losses

    def flush(self) -> None:
        """End a backward pass: hand on what waits for uses that did not lead to the loss."""
        for parameter in list(self._pending):
            self._hand_on(parameter)
        self._arrived = dict.fromkeys(self._names, 0)

    def _record(self, per_sample_losses: Callable[[], Losses]) -> list[Tensor]:
        self._recording = True
        losses = _one_by_one(per_sample_losses())
        self._recording = False
        for layer, shape in self._shapes:
            refuse_other_batch(self._layers[layer], layer, shape, len(losses[0]))
        return losses

    def _before(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._applying_rule:
            return
        if not self._recording:
            raise CoverageError(
                f"{describe(self._layers[layer], layer)} runs again during backward; switch "
                "gradient checkpointing off (diffusers: model.disable_gradient_checkpointing())"
            )
        use = _Use.of(layer, self._own(layer), args, kwargs)
        self._enter(use)
        self._running.append(use)

    def _after(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self._applying_rule:
            return output
        while (use := self._leave()).layer is not layer:
            pass  # its forward raised, and the model went on
        if not use.parameters or not torch.is_grad_enabled():
            return output
        refuse_other_output(self._layers[layer], layer, output)
        if not (output.is_floating_point() or output.is_complex()):
            return output
        self._shapes.append((layer, tuple(output.shape)))
        use.call = use.call._replace(kept=kept_by(rule_for(layer), output))
        if not output.requires_grad:
            # With its weights constant, a first layer would be cut off from backward.
            output = output.detach().requires_grad_().clone()
        elif output._is_view():
            # Autograd would lead around the hook if what follows works in place.
            output = output.clone()
        for parameter in use.parameters.values():
            self._uses[parameter] += 1
        output.register_hook(partial(self._arrive, use))
        return output

    def _enter(self, use: _Use) -> None:
        """What is to be done before a layer's own forward."""

    def _leave(self) -> _Use:
        return self._running.pop()

    def _arrive(self, use: _Use, output_gradient: Tensor) -> None:
        if self._recording:
            raise CoverageError(
                f"a gradient reached {self._describe(use)} during the forward pass; models that "
                "differentiate inside their forward are not supported"
            )
        if use.was_overwritten:
            raise CoverageError(
                f"the input of {self._describe(use)} was overwritten in place, by the layer or "
                "after it; make that operation out of place"
            )
        gradients = self._apply_rule(use, output_gradient.detach())
        if self.last:
            use.free()
        for own_name, parameter in use.parameters.items():
            if own_name in gradients:
                earlier = self._pending.get(parameter)
                gradient = gradients[own_name]
                self._pending[parameter] = gradient if earlier is None else earlier.add(gradient)
            self._arrived[parameter] += 1
        del gradients
        for parameter in use.parameters.values():
            complete = self._arrived[parameter] == self._uses[parameter]
            if complete and parameter in self._pending:
                self._hand_on(parameter)

    def _apply_rule(self, use: _Use, output_gradient: Tensor) -> dict[str, Gradient]:
        self._applying_rule = True
        precision = summed_in(next(iter(use.parameters.values())).dtype)
        given = output_gradient.to(precision)
        if self.scale != 1:
            given = given / self.scale
        try:
            return rule_for(use.layer)(use.layer, use.call_in(precision), given)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).strip().split("\n")[0]
            raise CoverageError(
                f"{self._describe(use)} cannot be taken apart by sample "
                f"({reason}); freeze its own parameters with requires_grad_(False)"
            ) from error
        finally:
            self._applying_rule = False

    def _describe(self, use: _Use) -> str:
        return describe(self._layers[use.layer], use.layer)

    def _hand_on(self, parameter: nn.Parameter) -> None:
        self._consume(self._names[parameter], self._pending.pop(parameter))

    def _own(self, layer: nn.Module) -> dict[str, nn.Parameter]:
        return {
            name: parameter
            for name, parameter in layer._parameters.items()
            if parameter is not None and parameter in self._names
        }


class ConstantWeightsTape(LiveTape):
    """Within a layer's `forward` its own trainable parameters are constants to autograd, so that
    their batch gradient is not formed; everywhere else they are not, and a gradient that reaches
    one comes from a use that no layer's rule accounts for.

    Attributes:
        losses: of the forward pass, R times `[B]`, detached.
    """

    losses: list[Tensor]

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, _nowhere, {name for name, _ in model.named_parameters()})
        self.scale = loss_scale(model)
        self._constant: dict[Tensor, int] = dict.fromkeys(self._names, 0)
        self._to_come: list[Tensor] = []

    def measure(self, per_sample_losses: Callable[[], Losses]) -> None:
        """Run the forward pass, as `record` does, of which any number of losses may come."""
        self._to_come = self._record(per_sample_losses)
        self.losses = [losses.detach() for losses in self._to_come]

    def backward(self, consume: Consumer) -> None:
        """Differentiate the next of the losses, and hand gradients to its consumer."""
        losses = self._to_come.pop(0)
        self._consume, self.last = consume, not self._to_come
        (losses.sum() * self.scale).backward(retain_graph=not self.last)
        self.flush()

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hook every trainable parameter, too."""
        with ExitStack() as stack:
            for parameter in self._names:
                stack.callback(parameter.requires_grad_, True)
                handle = parameter.register_hook(partial(self._refuse_outside_use, parameter))
                stack.callback(handle.remove)
            stack.enter_context(super().hooked())
            yield

    def _enter(self, use: _Use) -> None:
        for parameter in use.parameters.values():
            self._constant[parameter] += 1
            parameter.requires_grad_(False)

    def _leave(self) -> _Use:
        use = super()._leave()
        for parameter in use.parameters.values():
            self._constant[parameter] -= 1
            parameter.requires_grad_(self._constant[parameter] == 0)
        return use

    def _refuse_outside_use(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        owner = next(layer for layer in self._layers if parameter in {*self._own(layer).values()})
        raise CoverageError(
            f"parameter {self._names[parameter]!r} is used outside the forward of "
            f"{describe(self._layers[owner], owner)}, which owns it, where its per-sample gradient "
            "cannot be seen; call that layer, or freeze the parameter with requires_grad_(False)"
        )


def _nowhere(name: str, gradient: Gradient) -> None:
    """Consumes what comes before there is a consumer: nothing."""


def _one_by_one(losses: Losses) -> list[Tensor]:
    """R losses, each `[B]`.

    Raises:
        CoverageError: one of them depends on no trainable parameter.
        ValueError: they are not one number a sample, or there are none.
    """
    if isinstance(losses, Tensor):
        rows = list(losses) if losses.dim() == 2 else [losses]
        constant = _constant_rows(losses)
    else:
        rows, constant = list(losses), [not row.requires_grad for row in losses]
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) != 1 or any(len(shape) != 1 for shape in shapes):
        given = ", ".join(map(str, sorted(shapes))) or "none"
        raise ValueError(f"per_sample_losses must return [B] losses, not {given}")
    if any(constant):
        which = f"losses {constant.index(True)}" if len(rows) > 1 else "the losses"
        raise CoverageError(
            f"{which} do not depend on any trainable parameter: were they computed under "
            "torch.no_grad or detached, or is every layer that was used frozen?"
        )
    return rows


def _constant_rows(losses: Tensor) -> list[bool]:
    """Which rows have no graph; a stack that was made along the first axis knows of each."""
    node = losses.grad_fn
    if node is not None and node.name() == "StackBackward0" and getattr(node, "_saved_dim", 1) == 0:
        return [before is None for before, _ in node.next_functions]
    return [not losses.requires_grad]


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _cast(precision: torch.dtype, leaf: Any) -> Any:
    is_other = isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype != precision
    return leaf.to(precision) if is_other else leaf
