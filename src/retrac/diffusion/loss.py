"""The loss of each sample at its own timestep and noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from retrac.diffusion.calls import Call, call_of
from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.measurements import Measurement, Predicted, loss
from retrac.diffusion.process import Process
from retrac.diffusion.schedule import make_scheduler, process_of
from retrac.diffusion.shown import Seen

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda prediction, target: (prediction - target).abs(),
    "mse": lambda prediction, target: (prediction - target).square(),
}


class Loss(Protocol):
    """A loss of each sample, as everything that takes gradients of it asks for it."""

    def losses(self, model: Any, seen: Seen, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Losses `[B]`; arguments as of `Objective.losses`."""
        ...

    @property
    def gives_output(self) -> bool:
        """Whether the network's output can be measured, beside the loss."""
        ...

    def measure(
        self,
        model: Any,
        seen: Seen,
        timesteps: Tensor,
        noise: Tensor,
        measurements: Sequence[Measurement],
    ) -> tuple[Tensor, ...]:
        """Several measurements of one forward pass, `[B]` each; as of `Objective.measure`."""
        ...


@dataclass(frozen=True, eq=False)
class Objective:
    """`L(θ; x, t, ε)`, the mean over pixels of the distance between prediction and target.

    Pixels count as `Seen.counted` says.

    Attributes:
        process: how samples are noised, what is to be predicted, and how much a loss counts.
        distance: elementwise, of prediction and target.
        call: how the network is called.
    """

    process: Process
    distance: Callable[[Tensor, Tensor], Tensor]
    call: Call

    @staticmethod
    def of(config: ObjectiveConfig) -> "Objective":
        """Build the objective that a configuration describes, for a `UNet2DModel`."""
        process = process_of(make_scheduler(config))
        return Objective(process, DISTANCES[config.loss], call_of("UNet2DModel"))

    @property
    def gives_output(self) -> bool:
        """Yes."""
        return True

    def losses(
        self,
        model: Callable[..., Any] | nn.Module,
        seen: Seen,
        timesteps: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Run the network on noised samples.

        Args:
            model: of the family that `call` is for.
            seen: B samples.
            timesteps: `[B]` int64 in [0, T).
            noise: `[B, …]`, standard normal.

        Returns:
            Losses `[B]`, float32 or wider, whatever the precision of weights.
        """
        return self.measure(model, seen, timesteps, noise, (loss,))[0]

    def measure(
        self,
        model: Callable[..., Any] | nn.Module,
        seen: Seen,
        timesteps: Tensor,
        noise: Tensor,
        measurements: Sequence[Measurement],
    ) -> tuple[Tensor, ...]:
        """Run the network once, and take R measurements of what it gives.

        Args:
            model, seen, timesteps, noise: as for `losses`.
            measurements: R of them.

        Returns:
            R times `[B]`, float32 or wider, whatever the precision of weights. Apart, so that the
            backward pass of one does not lead through the others.
        """
        process, clean = self.process, seen.clean
        noisy = process.noised(clean, noise, timesteps)
        target = process.target(clean, noise, timesteps)
        told = process.told.to(timesteps.device)[timesteps]
        given = seen._replace(clean=noisy).at(precision_of(model, noisy))
        prediction = self.call(model, given.clean, told, given.conditions)
        prediction = prediction.to(torch.promote_types(prediction.dtype, target.dtype))
        distances = self.distance(prediction, target)
        if seen.counted is not None:
            distances = distances * seen.counted
        losses = distances.flatten(1).mean(1)
        weight = process.weight.to(losses)[timesteps]
        predicted = Predicted(prediction, weight * losses, seen.counted, weight)
        return tuple(measurement(predicted) for measurement in measurements)


def precision_of(model: Any, otherwise: Tensor) -> torch.dtype:
    """Of a network's weights."""
    first = next(model.parameters(), otherwise) if isinstance(model, nn.Module) else otherwise
    return first.dtype
