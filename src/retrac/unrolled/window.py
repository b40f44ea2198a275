"""A window of a training: its steps, taken again from a checkpoint and differentiated."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from retrac.training.config import TrainConfig
from retrac.training.loop import Training, first_weights, make_accelerator
from retrac.training.recording import NoRecording
from retrac.training.sample_weights import SampleWeights
from retrac.training.trained import TrainedRun
from retrac.unrolled.backward import Piece, Step
from retrac.unrolled.state import Layout, State
from retrac.unrolled.updates import Update

MOMENTS = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
}
"""What torch's optimisers call what they remember."""


class Window:
    """The steps of a run from one checkpoint to another.

    Steps are taken by the run's own training, in its own precision, so that states are its own to
    the bit. Derivatives are of a second network, in float32 or float64.

    Args:
        run: what `retrac train` made.
        from_epoch: whole epochs before the window; those of a checkpoint, or 0.
        to_epoch: whole epochs before its end.
        precision: float32 or float64; of derivatives, and with float64 of the steps, too.
        weights: how much samples count, over the whole batch; all 1 by default.

    Attributes:
        steps: the numbers of its T steps, counted from the first of the training.
        network: that is differentiated.
        parameters: its trainable ones, in the order of the states' vectors.
        layout: of these vectors.
        update: what a step does with its gradient.

    Raises:
        RetracError: the checkpoint is damaged, or the dataset has changed.
    """

    def __init__(
        self,
        run: TrainedRun,
        from_epoch: int,
        to_epoch: int,
        precision: str = "float32",
        weights: SampleWeights | None = None,
    ) -> None:
        each = run.steps_per_epoch
        self.run = run
        self.weights = weights or SampleWeights.ones(run.size)
        self.steps = range(from_epoch * each, to_epoch * each)
        self._training = _training(run, from_epoch, precision, self.weights)
        self._trained = [p for p in self._training.network.parameters() if p.requires_grad]
        device = self._training.accelerator.device
        # Not `placed`, which turns tf32 off, with which training may have convolved.
        network = first_weights(run.config, run.shape)
        self.network: nn.Module = nn.Module.to(network, device, getattr(torch, precision))
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.layout = Layout.of(self.parameters)
        ema = self._training.ema
        self.update = Update(run.config.optimisation, ema.get_decay if ema is not None else None)

    @property
    def device(self) -> torch.device:
        """Where."""
        return self.parameters[0].device

    def state(self) -> State:
        """Where the training stands."""
        layout, ema = self.layout, self._training.ema
        weights = layout.vector([parameter.detach() for parameter in self._trained])
        moments = weights.new_zeros(self.update.moments, layout.size)
        remembered = [self._training.optimizer.state.get(each, {}) for each in self._trained]
        for row, name in zip(moments, self._moments, strict=True):
            if any(each.get(name) is not None for each in remembered):
                row.copy_(layout.vector([each[name] for each in remembered]))
        return State(
            weights,
            moments,
            weights.new_zeros(0) if ema is None else layout.vector(ema.shadow_params),
            max((int(each["step"]) for each in remembered if "step" in each), default=0),
            0 if ema is None else ema.optimization_step,
        )

    @torch.no_grad()
    def put(self, state: State) -> None:
        """Let the training stand elsewhere."""
        layout, training = self.layout, self._training
        layout.write(state.weights, self._trained)
        for place, parameter in enumerate(self._trained):
            remembered = {
                name: torch.zeros_like(parameter).copy_(layout.tensors(row)[place])
                for name, row in zip(self._moments, state.moments, strict=True)
            }
            if self.run.config.optimisation.optimizer != "sgd":
                remembered["step"] = torch.tensor(float(state.updates))
            training.optimizer.state[parameter] = remembered
        if training.ema is not None:
            layout.write(state.average, training.ema.shadow_params)
            training.ema.optimization_step = state.averaged

    def take(self, step: int) -> None:
        """Take a step of the training.

        Raises:
            RetracError: a loss is not finite.
        """
        self._training.step(step, step // self.run.steps_per_epoch, self.batch(step))

    def batch(self, step: int) -> np.ndarray:
        """The samples of a step, by their indices."""
        epoch, place = divmod(step, self.run.steps_per_epoch)
        return self.run.ledger.batches(epoch, self.run.config.batch_size)[place]

    def taken(self, step: int, state: State, rows: int) -> Step:
        """A step as it was taken, to be differentiated.

        Args:
            step: its number.
            state: before it.
            rows: samples in a piece, at the most.
        """
        batch, epoch = self.batch(step), step // self.run.steps_per_epoch
        precision = self.parameters[0].dtype
        pieces = [
            self._piece(epoch, batch[start : start + rows], precision)
            for start in range(0, len(batch), rows)
        ]
        rate = self.run.steps[step].learning_rate
        wide = state.with_vectors(*(vector.to(precision) for vector in state.vectors))
        return Step(wide, rate, self.weights.share(batch), pieces)

    def _piece(self, epoch: int, samples: np.ndarray, precision: torch.dtype) -> Piece:
        def losses() -> Tensor:
            shown = self.run.shown(epoch, samples).on(self.device)
            return self.run.objective.losses(self.network, *shown)

        return Piece(losses, self.weights.of(samples).to(self.device, precision))

    @property
    def _moments(self) -> Sequence[str]:
        return MOMENTS[self.run.config.optimisation.optimizer][: self.update.moments]


def _training(run: TrainedRun, epoch: int, precision: str, weights: SampleWeights) -> Training:
    """The run's training where it stood after so many epochs; it writes nothing."""
    config: TrainConfig = run.config
    if precision == "float64":
        config = replace(config, mixed_precision="no")
    accelerator = make_accelerator(config)
    network = first_weights(config, run.shape)
    if precision == "float64":
        network = nn.Module.to(network, torch.float64)
    training = Training(
        config, run.path, accelerator, run.dataset, run.ledger, network, NoRecording(), weights
    )
    if epoch:
        (place,) = (each.path for each in run.checkpoints if each.epoch == epoch)
        training.stand_at(place)
    return training
