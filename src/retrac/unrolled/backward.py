"""One step of training, backwards: what its samples did to measurements that were made later.

With θ' = U(θ, g) the step, g = Σ_i w_i ∇ℓ_i(θ) / B its gradient, and a the derivative of a
measurement with respect to θ', the derivative with respect to g is u = (∂U/∂g)ᵀ a. Then

    ∂m/∂w_i = ⟨u, ∇ℓ_i⟩ / B,   ∂m/∂θ = (∂U/∂θ)ᵀ a + ∇_θ ⟨u, g⟩

which is reverse-mode differentiation of the whole training (Maclaurin et al. 2015, "Gradient-based
Hyperparameter Optimization through Reversible Learning"; Ilyas and Engstrom 2025, "MAGIC").
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from retrac.unrolled.state import Layout, State
from retrac.unrolled.updates import Update


class Piece(NamedTuple):
    """Some samples of a batch.

    Attributes:
        losses: runs the network as it is: `[B]`.
        weights: `[B]`, how much each counts.
    """

    losses: Callable[[], Tensor]
    weights: Tensor


class Adjoint(NamedTuple):
    """Derivatives of Q measurements with respect to a state.

    Attributes:
        weights: `[Q, P]`.
        moments: `[Q, M, P]`.
        average: `[Q, P]`, or `[Q, 0]` where none is kept.
    """

    weights: Tensor
    moments: Tensor
    average: Tensor

    @staticmethod
    def of(upon: Tensor, state: State) -> "Adjoint":
        """At the end.

        Args:
            upon: `[Q, P]`, derivatives with respect to the weights that generate.
            state: at the end.
        """
        count, nothing = len(upon), torch.zeros_like(upon)
        moments = upon.new_zeros(count, *state.moments.shape)
        if state.average.numel():
            return Adjoint(nothing, moments, upon.clone())
        return Adjoint(upon.clone(), moments, upon.new_zeros(count, 0))


class Step(NamedTuple):
    """One step of training, as it was taken.

    Attributes:
        state: before it.
        rate: its learning rate; 0 where it was skipped.
        share: 1/B, by which the sum of the batch's losses was multiplied.
        pieces: of the batch, which are differentiated one at a time.
    """

    state: State
    rate: float
    share: float
    pieces: Sequence[Piece]


def step_back(
    update: Update, parameters: Sequence[nn.Parameter], step: Step, after: Adjoint
) -> tuple[Adjoint, Tensor]:
    """From the state after a step to the state before it.

    Args:
        update: what the step did with its gradient.
        parameters: of the network that the losses run; they are set to the state.
        step: which.
        after: derivatives with respect to the state after it.

    Returns:
        Those with respect to the state before it, and `[Q, B]` those with respect to the weights
        of the batch's samples.
    """
    layout = Layout.of(parameters)
    layout.write(step.state.weights, parameters)
    # Fast kernels of attention have no second derivatives.
    with sdpa_kernel(SDPBackend.MATH):
        whole = _gradient(parameters, layout, step, step.pieces[0])
        gradient = whole.gradient.detach()
        if len(step.pieces) > 1:  # the update needs all of it before any is differentiated again
            del whole
            for piece in step.pieces[1:]:
                gradient += _gradient(parameters, layout, step, piece).gradient.detach()
        before, upon = _through_update(update, step, gradient, after)
        effects = []
        for piece in step.pieces:
            made = whole if len(step.pieces) == 1 else _gradient(parameters, layout, step, piece)
            curved, effect = _through_gradient(parameters, layout, made, upon)
            before.weights.add_(curved)
            effects.append(effect)
    return before, torch.cat(effects, 1)


class _Pass(NamedTuple):
    """A gradient `[P]` of B samples that can be differentiated again, and their weights `[B]`."""

    gradient: Tensor
    weights: Tensor


def _gradient(
    parameters: Sequence[nn.Parameter], layout: Layout, step: Step, piece: Piece
) -> _Pass:
    weights = piece.weights.detach().clone().requires_grad_()
    total = (piece.losses() * weights).sum() * step.share
    gradients = torch.autograd.grad(total, parameters, create_graph=True, materialize_grads=True)
    return _Pass(layout.vector(gradients), weights)


def _through_update(
    update: Update, step: Step, gradient: Tensor, after: Adjoint
) -> tuple[Adjoint, Tensor]:
    """Derivatives by the state, the gradient held fixed, and by the gradient, `[Q, P]`."""
    inputs = [vector.detach().requires_grad_() for vector in (*step.state.vectors, gradient)]
    reached = update(step.state.with_vectors(*inputs[:3]), inputs[3], step.rate)
    outputs = reached.vectors
    found = [
        torch.autograd.grad(outputs, inputs, each, retain_graph=True, materialize_grads=True)
        for each in zip(*after, strict=True)
    ]
    weights, moments, average, upon = map(torch.stack, zip(*found, strict=True))
    return Adjoint(weights, moments, average), upon


def _through_gradient(
    parameters: Sequence[nn.Parameter], layout: Layout, made: _Pass, upon: Tensor
) -> tuple[Tensor, Tensor]:
    """Derivatives `[Q, P]` and `[Q, B]` of the inner products ⟨u, g⟩."""
    curved, effects = [], []
    for row in upon:
        *again, effect = torch.autograd.grad(
            made.gradient,
            [*parameters, made.weights],
            row,
            retain_graph=True,
            materialize_grads=True,
        )
        curved.append(layout.vector(again))
        effects.append(effect)
    return torch.stack(curved), torch.stack(effects)
