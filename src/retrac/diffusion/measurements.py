"""Measurements: scalars of each sample whose gradients attribution compares.

The run's own loss is one of them. Those of the output alone say what the network draws, whatever
noise was added (D-TRAK: Zheng et al. 2024, "Intriguing Properties of Data Attribution on Diffusion
Models", section 4). Free of torch's import, as the records of methods are.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from retrac.errors import RetracError

if TYPE_CHECKING:
    from torch import Tensor


class Predicted(NamedTuple):
    """What one forward pass gives of B samples.

    Attributes:
        output: `[B, …]`, what the network predicts.
        losses: `[B]`, the run's own.
        counted: how much each pixel counts, `[B, 1, H, W]` with a mean of 1; None where all count
            alike.
        weight: `[B]`, of each mean over pixels in the losses, by its timestep.
    """

    output: "Tensor"
    losses: "Tensor"
    counted: "Tensor | None"
    weight: "Tensor"


Measurement: TypeAlias = "Callable[[Predicted], Tensor]"
"""What one forward pass gives -> `[B]`."""


def loss(predicted: Predicted) -> "Tensor":
    """The run's own loss."""
    return predicted.losses


def output_mean(predicted: Predicted) -> "Tensor":
    """Mean of the output over pixels."""
    return _mean(predicted.output, predicted.counted)


def output_square(predicted: Predicted) -> "Tensor":
    """Mean square of the output over pixels (D-TRAK)."""
    return _mean(predicted.output.square(), predicted.counted)


def refuse_all_but_the_loss(measurements: Sequence[Measurement], what: str) -> None:
    """Refuse measurements of the output, where only losses are known.

    Raises:
        RetracError: there is one.
    """
    for measurement in measurements:
        if measurement is not loss:
            raise RetracError(
                f"{what} gives losses alone: its {measurement.__name__} cannot be measured"
            )


def _mean(values: "Tensor", counted: "Tensor | None") -> "Tensor":
    weighted = values if counted is None else values * counted
    return weighted.flatten(1).mean(1)
