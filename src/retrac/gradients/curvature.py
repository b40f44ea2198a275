"""EK-FAC: the curvature of a loss, layer by layer, and its inverse applied to directions.

Influence functions score a sample by `∇m(q)ᵀ (H + λ)⁻¹ ∇L(x)`. H is here the Fisher information
`E[g gᵀ]` of per-sample gradients g, one block a parameter (Mlodozeniec et al. 2024, arXiv
2410.13850; the eigenvalues are those of George et al. 2018, arXiv 1806.03884):

- a factored gradient `Σ_p b_p a_pᵀ` (linear layers, convolutions with their whole patches,
  embeddings) has `H ≈ (Q_S ⊗ Q_A) diag(Λ) (Q_S ⊗ Q_A)ᵀ` with the eigenvectors of `A = Σ a_p a_pᵀ`
  and `S = Σ b_p b_pᵀ` over all positions ("expand" K-FAC, Eschenhagen et al. 2023, arXiv
  2311.00636), and Λ the mean square of a sample's gradient in that basis. Groups of a convolution
  have a block each;
- a dense gradient (biases, scales of normalisations, layers without a rule of their own, a
  parameter that layers of different kinds share) has `H ≈ diag(E[g²])`.

It takes two rounds of passes, `Covariances` and then `Eigenvalues`, which consume gradients as
`per_sample_gradients` hands them on. What makes H the Fisher information (the Gauss-Newton matrix
of the network's output) is that the losses' targets are drawn around the network's own
predictions, which is up to the caller.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from retrac.gradients import routes
from retrac.gradients.coverage import CoverageError
from retrac.gradients.gradient import Factored, Gradient
from retrac.gradients.layers import layer_of
from retrac.gradients.layout import Directions, Layout

DAMPING = 0.1
"""λ in a layer's mean eigenvalues, as in FastGDA (arXiv 2511.10721)."""
WIDEST = 2**14
"""Inputs or outputs of which an eigenbasis is still formed: its matrix has 1 GB."""


class Sides(NamedTuple):
    """A matrix for either side of a factored gradient.

    Attributes:
        inputs: `[G, I, I]`, of the numbers that each position sees, group by group.
        outputs: `[G, O, O]`, of the output gradients.
    """

    inputs: Tensor
    outputs: Tensor


class Covariances:
    """Takes gradients as they come, and sums the second moments of their factors.

    Sums, since eigenvectors do not depend on scale. Dense gradients need none, and are passed over.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Sides] = {}

    def __call__(self, name: str, gradient: Gradient) -> None:
        """Add one parameter's gradients.

        Raises:
            CoverageError: the layer is too wide for an eigenbasis.
        """
        if not isinstance(gradient, Factored):
            return
        _refuse_wide(name, gradient)
        moments = Sides(*gradient.second_moments())
        if name in self.sums:
            for sum_, more in zip(self.sums[name], moments, strict=True):
                sum_.add_(more)
        else:
            self.sums[name] = moments

    def bases(self) -> dict[str, Sides]:
        """Eigenvectors in columns, for each parameter's name.

        Raises:
            CoverageError: sums that are not finite.
        """
        return {
            name: Sides(*(_eigenvectors(name, matrices) for matrices in sums))
            for name, sums in self.sums.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Everything, as `NAME/inputs` and `NAME/outputs`, for safetensors."""
        return _flat({name: sums._asdict() for name, sums in self.sums.items()})

    @staticmethod
    def of_state(state: Mapping[str, Tensor]) -> "Covariances":
        """Go on from a state, whose tensors are taken over."""
        covariances = Covariances()
        covariances.sums = {name: Sides(**parts) for name, parts in _by_name(state).items()}
        return covariances


@dataclass(frozen=True, eq=False)
class Block:
    """The curvature of one parameter.

    Attributes:
        eigenvalues: `[G, O, I]`, or `[n]` of a dense gradient.
        layout: the order of these numbers in the parameter.
        basis: of a factored gradient, its eigenvectors in columns; None is the standard basis.
    """

    eigenvalues: Tensor
    layout: Layout
    basis: Sides | None = None

    def scale(self, tensors: Tensor, values: Tensor) -> Tensor:
        """`Q diag(values) Qᵀ` times directions.

        Args:
            tensors: the directions, `[M, *parameter.shape]`.
            values: as many as there are eigenvalues.

        Returns:
            `[M, n]` in the order of the layout.
        """
        rows = self.layout.pack(tensors)
        if self.basis is None:
            return rows * values
        result = torch.empty_like(rows)
        room = max(1, routes.TILE_BYTES // max(1, rows.element_size() * self.layout.size))
        for start in range(0, len(rows), room):
            part = slice(start, start + room)
            matrices = rows[part].view(-1, *self.eigenvalues.shape)
            scaled = _rotate(matrices, self.basis.outputs, self.basis.inputs) * values
            back = _rotate(scaled, self.basis.outputs.mT, self.basis.inputs.mT)
            result[part] = back.flatten(1)
        return result


@dataclass(frozen=True, eq=False)
class EKFAC:
    """A network's curvature, one block a parameter.

    Attributes:
        blocks: for each parameter's name.
    """

    blocks: Mapping[str, Block]

    def precondition(self, directions: Directions, damping: float = DAMPING) -> Directions:
        """`(H + λ)⁻¹` times directions, with a λ for each layer.

        Where `Λ + λ` is 0 the result is 0: the losses do not depend on the parameters there.

        Args:
            directions: M of them.
            damping: λ, in the layer's mean eigenvalues. Without it, what is only rounding in a
                gradient counts as much as the gradient itself.

        Raises:
            CoverageError: as `apply`.
            ValueError: the damping is negative.
        """
        if damping < 0:
            raise ValueError(f"damping must not be negative, but is {damping}")
        means = self.layer_means()

        def inverse(name: str, eigenvalues: Tensor) -> Tensor:
            damped = eigenvalues + damping * means[name]
            return torch.where(damped > 0, 1 / damped, 0)

        return self.apply(directions, inverse)

    def layer_means(self) -> dict[str, Tensor]:
        """The mean eigenvalue of a parameter's layer, for each parameter's name.

        Over weight and bias together, as if the bias were one more input. By itself a bias may have
        no curvature but rounding (of the keys in attention, which shifts all logits alike), and to
        divide by that would drown everything else.
        """
        layers: dict[str, list[Tensor]] = {}
        for name, block in self.blocks.items():
            layers.setdefault(layer_of(name), []).append(block.eigenvalues.flatten())
        means = {layer: torch.cat(values).mean() for layer, values in layers.items()}
        return {name: means[layer_of(name)] for name in self.blocks}

    def apply(
        self, directions: Directions, function: Callable[[str, Tensor], Tensor]
    ) -> Directions:
        """`f(H)` times directions.

        Args:
            directions: M of them, in the precision and on the device of the curvature.
            function: of a parameter's name and its eigenvalues, number by number, to as many.

        Raises:
            CoverageError: there is a direction, not zero, of a parameter without curvature.
        """
        rows: dict[str, tuple[Layout, Tensor]] = {}
        for name, tensors in directions.parameters().items():
            if name in self.blocks:
                block = self.blocks[name]
                values = function(name, block.eigenvalues)
                rows[name] = (block.layout, block.scale(tensors, values))
            elif not tensors.any():  # of a parameter that no pass used
                layout = Layout.in_order(tensors.shape[1:])
                rows[name] = (layout, tensors.reshape(len(tensors), layout.size))
            else:
                raise CoverageError(
                    f"parameter {name!r} has a direction but no curvature: no pass that the "
                    "curvature was fitted on has used it"
                )
        return Directions.from_rows(rows)

    def state(self) -> dict[str, Tensor]:
        """Everything, as `NAME/eigenvalues`, `/layout`, `/inputs`, `/outputs`, for safetensors."""
        return _flat({name: _parts(block) for name, block in self.blocks.items()})

    @staticmethod
    def of_state(state: Mapping[str, Tensor]) -> "EKFAC":
        """What `state` has written."""
        return EKFAC({name: _block(parts) for name, parts in _by_name(state).items()})


class Eigenvalues:
    """Takes gradients as they come, and sums their squares in the eigenbases.

    Args:
        bases: of `Covariances`.
    """

    def __init__(self, bases: Mapping[str, Sides]) -> None:
        self._bases = dict(bases)
        self._sums: dict[str, Block] = {}
        self._counts: dict[str, int] = {}

    def __call__(self, name: str, gradient: Gradient) -> None:
        """Add one parameter's gradients.

        Raises:
            CoverageError: they are of another kind than those of the first round.
        """
        block = self._squares(name, gradient)
        if name in self._sums:
            self._sums[name].eigenvalues.add_(block.eigenvalues)
        else:
            self._sums[name] = block
        self._counts[name] = self._counts.get(name, 0) + len(gradient)

    def ekfac(self) -> EKFAC:
        """The curvature: sums over the number of samples.

        Samples are those of the parameter that was used most often: where a pass does not use a
        parameter, its gradients are zero.

        Raises:
            CoverageError: a parameter of the first round has not come again.
        """
        for name in self._bases.keys() - self._sums.keys():
            raise CoverageError(f"parameter {name!r} was used by the first passes only")
        count = max(self._counts.values(), default=1)
        return EKFAC(
            {
                name: replace(block, eigenvalues=block.eigenvalues / count)
                for name, block in self._sums.items()
            }
        )

    def state(self) -> dict[str, Tensor]:
        """Bases, sums and counts, for safetensors."""
        parts = {name: basis._asdict() for name, basis in self._bases.items()}
        for name, block in self._sums.items():
            parts[name] = {**_parts(block), "count": torch.tensor(self._counts[name])}
        return _flat(parts)

    @staticmethod
    def of_state(state: Mapping[str, Tensor]) -> "Eigenvalues":
        """Go on from a state, whose tensors are taken over."""
        by_name = _by_name(state)
        eigenvalues = Eigenvalues(
            {name: basis for name, parts in by_name.items() if (basis := _basis(parts)) is not None}
        )
        for name, parts in by_name.items():
            if "count" in parts:
                eigenvalues._counts[name] = int(parts["count"])
                eigenvalues._sums[name] = _block(parts)
        return eigenvalues

    def _squares(self, name: str, gradient: Gradient) -> Block:
        basis = self._bases.get(name)
        if isinstance(gradient, Factored) and basis is not None:
            return Block(gradient.squares_in(*basis), gradient.matrix_layout, basis)
        if isinstance(gradient, Factored) or basis is not None:
            raise CoverageError(
                f"parameter {name!r} is used in another way than in the first passes, so it has "
                "no eigenbasis that fits"
            )
        return Block(gradient.squares(), gradient.layout)


def _rotate(matrices: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """`outputsᵀ D inputs` of `D [M, G, O, I]`."""
    return torch.einsum("mgpi,gij->mgpj", torch.einsum("mgoi,gop->mgpi", matrices, outputs), inputs)


def _eigenvectors(name: str, matrices: Tensor) -> Tensor:
    """Of symmetric matrices `[G, C, C]`, in columns; found in float64."""
    if not matrices.isfinite().all():
        raise CoverageError(f"gradients of parameter {name!r} are not finite, or too large to sum")
    wide = matrices.cpu() if matrices.device.type == "mps" else matrices  # has no float64
    return torch.linalg.eigh(wide.double())[1].to(matrices)


def _refuse_wide(name: str, gradient: Factored) -> None:
    sides = {"inputs": gradient.inputs.shape[3], "outputs": gradient.b.shape[3]}
    for side, width in sides.items():
        if width > WIDEST:
            raise CoverageError(
                f"parameter {name!r} has {width:,} {side} a position, too many for an eigenbasis "
                f"(at most {WIDEST:,}): freeze it with requires_grad_(False)"
            )


def _parts(block: Block) -> dict[str, Tensor]:
    layout = block.layout
    sizes = (len(layout.shape), *layout.shape, *layout.axes, *layout.parameter)
    parts = {"eigenvalues": block.eigenvalues, "layout": torch.tensor(sizes)}
    return parts if block.basis is None else {**parts, **block.basis._asdict()}


def _block(parts: Mapping[str, Tensor]) -> Block:
    count, *sizes = parts["layout"].tolist()
    shape, axes, parameter = sizes[:count], sizes[count : 2 * count], sizes[2 * count :]
    layout = Layout(tuple(shape), tuple(axes), tuple(parameter))
    return Block(parts["eigenvalues"], layout, _basis(parts))


def _basis(parts: Mapping[str, Tensor]) -> Sides | None:
    return Sides(parts["inputs"], parts["outputs"]) if "inputs" in parts else None


def _flat(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{name}/{part}": tensor.contiguous()
        for name, tensors in parts.items()
        for part, tensor in tensors.items()
    }


def _by_name(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, part = key.rpartition("/")
        parts.setdefault(name, {})[part] = tensor
    return parts
