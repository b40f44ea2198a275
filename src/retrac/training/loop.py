"""The training loop: the ledger decides every event, and any step can be the last one."""

import math
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor

from retrac.data.dataset import ImageDataset
from retrac.data.open import open_dataset
from retrac.diffusion.loss import Objective
from retrac.diffusion.model import build_unet, load_unet
from retrac.diffusion.schedule import make_scheduler
from retrac.errors import RetracError
from retrac.files import remove
from retrac.progress import progress
from retrac.store.index import Index
from retrac.training.begin_recording import begin_recording, earlier_recording
from retrac.training.config import RecordConfig, TrainConfig
from retrac.training.inputs import training_inputs
from retrac.training.ledger import Ledger
from retrac.training.optimiser import learning_rate, make_optimizer
from retrac.training.recording import (
    RECORDED,
    NoRecording,
    Recorder,
    Recording,
)
from retrac.training.resume import begin, latest_state, refuse_unfit
from retrac.training.run import CHECKPOINTS
from retrac.training.sample_weights import SampleWeights
from retrac.training.signals import Interrupted, stop_requests
from retrac.training.snapshot import write_snapshot
from retrac.training.state import Point, load_state, make_ema, save_state
from retrac.training.steps import Step, read_steps, write_steps
from retrac.training.trained import TrainedRun, checkpoints_in

STATE_SECONDS = 60.0
"""How much training a `kill -9` can lose; the result does not depend on it."""


def train(
    config: TrainConfig,
    output: str | Path,
    record: RecordConfig | None = None,
    dataset: ImageDataset | None = None,
) -> TrainedRun:
    """Train, or go on with a training that was stopped; the weights are the same either way.

    Args:
        config: everything that decides the weights.
        output: the run folder.
        record: what is recorded of every visit's gradient; None for nothing.
        dataset: what `config.data` names, where it is open already.

    Raises:
        RetracError: `output` holds another run, the configuration does not fit the dataset, a loss
            is not finite, or no space is left.
        Interrupted: stopped by a signal; the state is saved.
    """
    output = Path(output)
    accelerator = make_accelerator(config)
    dataset = dataset or open_dataset(config.data)
    ledger = Ledger(config.seed, len(dataset), config.objective.timesteps)
    model = first_weights(config, dataset.shape)
    if accelerator.is_main_process:
        refuse_unfit_training(output, config, record, dataset, ledger)
        parameters = sum(p.numel() for p in model.parameters())
        begin(output, config, dataset, ledger, parameters)
    accelerator.wait_for_everyone()
    recording: Recording = NoRecording()
    if record is not None:
        if accelerator.is_main_process:
            begin_recording(output, config, record, model, dataset, ledger)
        accelerator.wait_for_everyone()
        index = Index.open(output / RECORDED)
        recording = Recorder(index, model, ledger, accelerator, record.weights)
    Training(config, output, accelerator, dataset, ledger, model, recording).run()
    accelerator.wait_for_everyone()
    return TrainedRun.open(output)


def refuse_unfit_training(
    output: Path,
    config: TrainConfig,
    record: RecordConfig | None,
    dataset: ImageDataset,
    ledger: Ledger,
) -> Index | None:
    """Refuse what can neither begin nor go on; returns the recording that it goes on with.

    Raises:
        RetracError: as `refuse_unfit` and `earlier_recording`.
    """
    refuse_unfit(output, config, dataset, ledger)
    return earlier_recording(output, config, record, dataset, ledger)


class Training:
    """A run folder, a network and its optimiser, step by step."""

    def __init__(
        self,
        config: TrainConfig,
        output: Path,
        accelerator: Accelerator,
        dataset: ImageDataset,
        ledger: Ledger,
        model: UNet2DModel,
        recording: Recording,
        weights: SampleWeights | None = None,
    ) -> None:
        self.config = config
        self.recording = recording
        self.weights = weights or SampleWeights.ones(len(dataset))
        self.output = output
        self.accelerator = accelerator
        self.dataset = dataset
        self.ledger = ledger
        self.objective = Objective.of(config.objective)
        self.scheduler = make_scheduler(config.objective)
        self.network = model
        self.optimizer = make_optimizer(config.optimisation, model)
        self.model, self.stepper = accelerator.prepare(model, self.optimizer)
        self.ema: EMAModel | None = make_ema(model, config.ema_decay)
        self.steps_per_epoch = math.ceil(len(dataset) / config.batch_size)
        self.steps: list[Step] = []

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return bool(self.accelerator.is_main_process)

    def run(self) -> None:
        """Go on from the latest state to the last epoch."""
        start = self._resume()
        total = self.config.epochs * self.steps_per_epoch
        saved = time.monotonic()
        # With several processes a signal reaches them at different steps: let it end them.
        alone = self.accelerator.num_processes == 1
        with (
            stop_requests(alone) as stop_requested,
            progress("train", total, "steps", done=start, shown=self.is_main) as advance,
        ):
            batches: list[np.ndarray] = []
            for step in range(start, total):
                epoch, position = divmod(step, self.steps_per_epoch)
                if position == 0 or not batches:
                    batches = self.ledger.batches(epoch, self.config.batch_size)
                self.steps.append(self.step(step, epoch, batches[position]))
                advance(note=f"epoch {epoch + 1} loss {self.steps[-1].loss:.4f}")
                done, at_end = step + 1, position + 1 == self.steps_per_epoch
                if at_end and self.config.has_checkpoint(epoch + 1):
                    self.save_checkpoint(epoch + 1, done)
                    saved = time.monotonic()
                elif stop_requested() or time.monotonic() - saved > STATE_SECONDS:
                    self._save_state(done)
                    saved = time.monotonic()
                if stop_requested() and done < total:
                    raise Interrupted(
                        f"stopped after step {done} of {total}; the same command goes on from there"
                    )
        if self.is_main:
            remove(self.output / "state")

    def step(self, step: int, epoch: int, batch: np.ndarray) -> Step:
        """Train on one batch; `step` and `epoch` count from 0."""
        rate = learning_rate(self.config.optimisation, step)
        for group in self.stepper.param_groups:
            group["lr"] = rate
        processes = self.accelerator.num_processes
        mine = np.array_split(batch, processes)[self.accelerator.process_index]
        # A process without samples still takes part in the exchange of gradients.
        indices = mine if len(mine) else batch[:1]
        # Processes' gradients are averaged: weight each so that the result is the batch's mean.
        factor = processes * self.weights.share(batch)
        with self.recording.watch() as tape:
            losses = tape.record(lambda: self._losses(epoch, indices))
            if not len(mine):
                losses = losses * 0
            self._refuse_non_finite(losses, indices, step, epoch)
            weighted = losses * self.weights.of(indices).to(losses)
            self.accelerator.backward(weighted.sum() * factor)
            tape.flush()
        if self.accelerator.scaler is not None:
            factor *= self.accelerator.scaler.get_scale()
        if self.config.optimisation.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(
                self.model.parameters(), self.config.optimisation.max_grad_norm
            )
        self.stepper.step()
        if self.stepper.step_was_skipped:  # by the gradient scaler of fp16
            rate = 0.0
        self.recording.visit(epoch, batch, rate, factor)
        self.stepper.zero_grad()
        if self.ema is not None:
            self.ema.step(self.network.parameters())
        total = self.accelerator.reduce(losses.detach().sum(), reduction="sum")
        return Step(step, epoch, len(batch), rate, float(total) / len(batch))

    def _losses(self, epoch: int, indices: np.ndarray) -> Tensor:
        shown = training_inputs(self.dataset, self.ledger, epoch, indices, self.config.flip)
        return self.objective.losses(self.model, *shown.on(self.accelerator.device))

    def _refuse_non_finite(
        self, losses: Tensor, indices: np.ndarray, step: int, epoch: int
    ) -> None:
        finite = torch.isfinite(losses.detach()).cpu().numpy()
        if not finite.any() and step:
            raise RetracError(
                f"the weights broke in step {step} of epoch {epoch + 1}: the loss of no sample of "
                "the next batch is finite; lower --learning-rate, or set --max-grad-norm; earlier "
                "checkpoints are kept"
            )
        if not finite.all():
            sample = self.dataset.ids[int(indices[~finite][0])]
            raise RetracError(
                f"the loss of sample {sample!r} is not finite in epoch {epoch + 1}, step {step + 1}"
                ": lower --learning-rate, or set --max-grad-norm; earlier checkpoints are kept"
            )

    def save_checkpoint(self, epoch: int, done: int) -> None:
        """Save all there is after `epoch` epochs and `done` steps."""
        if not self.is_main:
            return
        # Before the checkpoint, without which the training will come by here again.
        self.recording.end_interval(self._interval_start(epoch), epoch)
        if not all(torch.isfinite(parameter).all() for parameter in self.network.parameters()):
            raise RetracError(
                f"the weights are not finite after epoch {epoch}: lower --learning-rate, or set "
                "--max-grad-norm; earlier checkpoints are kept"
            )
        write_snapshot(
            self.output,
            epoch,
            self.config,
            self.network,
            self.dataset.shape,
            self.ema,
            self.steps,
        )
        self._save(self.output / CHECKPOINTS / f"epoch-{epoch:04d}", done, NoRecording())
        remove(self.output / "state")

    def _interval_start(self, epoch: int) -> int:
        earlier = [point.epoch for point in checkpoints_in(self.output) if point.epoch < epoch]
        return max(earlier, default=0)

    def _save_state(self, done: int) -> None:
        if not self.is_main:
            return
        folder = self.output / "state" / f"step-{done:08d}"
        earlier = [other for other in folder.parent.glob("step-*") if other != folder]
        self._save(folder, done, self.recording)
        for other in earlier:
            remove(other)

    def _save(self, folder: Path, done: int, recording: Recording) -> None:
        # The steps first: they may tell of more than the weights hold, never of less.
        write_steps(self.output, self.steps)
        scaler = self.accelerator.scaler
        point = Point(
            step=done,
            epoch=done // self.steps_per_epoch,
            learning_rate=self.steps[-1].learning_rate,
            scaler=scaler.state_dict() if scaler is not None else {},
        )
        save_state(
            folder,
            point,
            self.network,
            self.scheduler,
            self.optimizer,
            self.ema,
            recording.save,
        )

    def stand_at(self, folder: Path) -> Point:
        """Take up the state in a folder.

        Raises:
            RetracError: a file of it is absent or damaged.
        """
        point = load_state(folder, self.network, self.dataset.shape, self.optimizer, self.ema)
        if point.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(point.scaler)
        return point

    def _resume(self) -> int:
        folder = latest_state(self.output)
        if folder is None:
            return 0
        try:
            point = self.stand_at(folder)
        except RetracError as error:
            raise RetracError(
                f"{error}; delete {folder} to go on from what was saved before it"
            ) from error
        if folder.parent.name != CHECKPOINTS:
            self.recording.load(folder)
        self.steps = [row for row in read_steps(self.output) if row.step < point.step]
        if len(self.steps) != point.step:
            raise RetracError(
                f"{self.output} records {len(self.steps)} steps but {folder} was saved after "
                f"{point.step}; the run is damaged: train into another --output"
            )
        return point.step


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Choose device and precision.

    Raises:
        RetracError: a precision that the device does not have.
    """
    AcceleratorState._reset_state()  # it refuses another precision than an earlier training's
    try:
        return Accelerator(mixed_precision=config.mixed_precision)
    except ValueError as error:
        raise RetracError(f"--mixed-precision {config.mixed_precision}: {error}") from error


def first_weights(config: TrainConfig, shape: tuple[int, int, int]) -> UNet2DModel:
    """The network before its first step, channels last."""
    model = (
        load_unet(config.pretrained, shape)
        if config.pretrained is not None
        else build_unet(config.model, shape, config.seed)
    )
    return model.to(memory_format=torch.channels_last)
