"""What training and generation will need, by a few steps of a network of their own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrac.data.dataset import ImageDataset
from retrac.diffusion.device import choose_device
from retrac.diffusion.sampling import BATCH, Making, sample
from retrac.estimate import PASSES, Estimate, folder_bytes, peak_bytes, scratch, seconds_of
from retrac.store.bins import TIMESTEPS, bin_columns
from retrac.store.feature import StoredFeature
from retrac.store.index import Index
from retrac.store.intervals import INTERVALS, sum_columns, visit_columns
from retrac.store.table import Column, Table, rows_in_chunk
from retrac.training.begin_recording import plan_recording
from retrac.training.config import RecordConfig, ReplayConfig, TrainConfig
from retrac.training.generation import labels_for
from retrac.training.generation import refuse_unfit as refuse_unfit_images
from retrac.training.ledger import Ledger
from retrac.training.loop import (
    STATE_SECONDS,
    Training,
    first_weights,
    make_accelerator,
    refuse_unfit_training,
)
from retrac.training.recording import NoRecording, Recorder
from retrac.training.replaying import planned
from retrac.training.resume import latest_state
from retrac.training.run import Run, choose_checkpoints
from retrac.training.state import read_point
from retrac.training.trained import TrainedRun

FLOAT = 4
CHUNK = 64
"""Samples whose sums are saved, to see how long it takes."""


@dataclass(frozen=True)
class StepsLeft:
    """What is left of a training.

    Attributes:
        visits: to samples.
        checkpoints: to be saved.
        interval: visits between two of them.
    """

    visits: int
    checkpoints: int
    interval: int

    @staticmethod
    def of(config: TrainConfig, samples: int, step: int) -> "StepsLeft":
        """After `step` steps of a training on so many samples."""
        epoch, position = divmod(step, math.ceil(samples / config.batch_size))
        return StepsLeft(
            (config.epochs - epoch) * samples - position * config.batch_size,
            sum(config.has_checkpoint(done) for done in range(epoch + 1, config.epochs + 1)),
            min(config.checkpoint_every, config.epochs) * samples,
        )


@dataclass(frozen=True)
class StepCosts:
    """What training costs.

    Attributes:
        visit: seconds.
        checkpoint: seconds, with everything that comes with it.
        state: seconds, of a rolling state.
        checkpoint_bytes: on disk, with everything that comes with it.
        state_bytes: on disk.
        held: bytes of memory that a few steps do not show.
    """

    visit: float
    checkpoint: float
    state: float
    checkpoint_bytes: int
    state_bytes: int
    held: int = 0


def training_needs(left: StepsLeft, costs: StepCosts, memory: int) -> Estimate:
    """Multiply; rolling states are saved where checkpoints are far apart."""
    seconds = left.visits * costs.visit
    rolling = left.interval * costs.visit // STATE_SECONDS  # between two checkpoints
    states = seconds // STATE_SECONDS if rolling else 0
    # Each is deleted once the next is whole, and the last one once the checkpoint is.
    at_end = left.checkpoints * costs.checkpoint_bytes + min(rolling, 1) * costs.state_bytes
    before = (left.checkpoints - 1) * costs.checkpoint_bytes + min(rolling, 2) * costs.state_bytes
    return Estimate(
        seconds + left.checkpoints * costs.checkpoint + states * costs.state,
        memory + costs.held,
        int(max(at_end, before)),
    )


def estimate_training(
    config: TrainConfig, dataset: ImageDataset, output: Path, record: RecordConfig | None
) -> Estimate | None:
    """Measure some steps, a checkpoint and a sampling step, with a network of its own.

    Args:
        config, output, record: as for `train`.
        dataset: what `config.data` names.

    Returns:
        None where little is left to do, and among several processes, whose steps wait for each
        other.

    Raises:
        RetracError: as `train` before its first step.
    """
    ledger = Ledger(config.seed, len(dataset), config.objective.timesteps)
    begun = refuse_unfit_training(output, config, record, dataset, ledger)
    return _estimate_from(_steps_done(output, 0), config, dataset, output, record, begun)


def estimate_replay(
    run: TrainedRun, weights: np.ndarray, config: ReplayConfig, output: Path
) -> Estimate | None:
    """Likewise of a replay.

    Args:
        run, weights, config, output: as for `replay`.

    Raises:
        RetracError: as `replay` before its first step.
    """
    found = planned(run, weights, config, output)
    done = _steps_done(output, found.from_epoch * run.steps_per_epoch)
    return _estimate_from(done, found.config, run.dataset, output, None, None)


def _steps_done(output: Path, first: int) -> int:
    """Of a training in a folder; `first` where it has not begun."""
    state = latest_state(output)
    return first if state is None else read_point(state).step


def _estimate_from(
    step: int,
    config: TrainConfig,
    dataset: ImageDataset,
    output: Path,
    record: RecordConfig | None,
    begun: Index | None,
) -> Estimate | None:
    """From a step on; `begun` is the recording that there is already."""
    accelerator = make_accelerator(config)
    left = StepsLeft.of(config, len(dataset), step)
    if left.visits <= PASSES * config.batch_size or accelerator.num_processes > 1:
        return None
    # So low a learning rate that repeated steps cannot break the weights.
    still = replace(config.optimisation, learning_rate=1e-30)
    with scratch(output) as folder:
        training = Training(
            replace(config, optimisation=still, sample_steps=1),
            folder,
            accelerator,
            dataset,
            Ledger(config.seed, len(dataset), config.objective.timesteps),
            first_weights(config, dataset.shape),
            NoRecording(),
        )
        costs = _plain_costs(training, config)
        if record is not None:
            costs = _recorded_costs(costs, training, config, begun, record)
    return training_needs(left, costs, peak_bytes(accelerator.device.type))


def estimate_generation(
    run: Run,
    folder: Path,
    count: int,
    seed: int,
    steps: int = 50,
    eta: float = 0.0,
    epoch: int | None = None,
    device: str = "auto",
    guidance: float = 1.0,
    labels: Sequence[str] = (),
) -> Estimate | None:
    """Measure one step; None where there are few.

    Args:
        run, folder, count, seed, steps, eta, epoch, device, guidance, labels: as for
            `generate_images`.

    Raises:
        RetracError: as `generate_images` before its first step.
    """
    refuse_unfit_images(run, folder, count, steps, eta)
    checkpoint = choose_checkpoints(run, () if epoch is None else (epoch,))[-1]
    passes = math.ceil(count / run.making.together) * steps
    if passes <= PASSES:
        return None
    place = choose_device(device)
    model = checkpoint.load_averaged(run.shape).to(place)
    told = labels_for(run, labels, count, "--labels")[:1]
    seconds = seconds_of(
        lambda: sample(model, run.making, range(1), seed, 1, eta, guidance, told, shown=False)
    )
    pixels = count * math.prod(run.shape)
    return Estimate(passes * seconds, peak_bytes(place.type) + pixels, 2 * pixels)


@dataclass(frozen=True)
class RowCosts:
    """What a sample's row in tables costs to write: seconds, and bytes on disk."""

    seconds: float
    disk: float

    def __add__(self, other: "RowCosts") -> "RowCosts":
        return RowCosts(self.seconds + other.seconds, self.disk + other.disk)


def row_costs(folder: Path, columns: Mapping[str, Column], samples: int) -> RowCosts:
    """Write a chunk of random numbers, into a folder that is not there.

    Args:
        folder: of the table.
        columns: of it.
        samples: no more rows than these.
    """
    count = min(samples, rows_in_chunk(columns))
    stream, table = np.random.default_rng(0), Table(folder)
    table.create(columns, count, count)
    rows = {
        name: stream.standard_normal((count, *column.shape), dtype=np.float32)
        for name, column in columns.items()
    }
    seconds = seconds_of(lambda: table.write(slice(0, count), rows))
    return RowCosts(seconds / count, folder_bytes(folder) / count)


def interval_row_costs(
    folder: Path, feature: StoredFeature, weights: int, visits: int, samples: int
) -> RowCosts:
    """What a sample's sums over an interval cost.

    Args:
        folder: where it is tried.
        feature: of an index.
        weights: under so many.
        visits: of a sample.
        samples: N.
    """
    one = row_costs(folder / "sums", sum_columns(feature), samples)
    every = row_costs(folder / "visits", visit_columns(visits), samples)
    return sum([one] * weights, every)


def _plain_costs(training: Training, config: TrainConfig) -> StepCosts:
    """Of steps and checkpoints, which go into the training's folder; `config` is the real one."""
    step = _step_seconds(training)
    save = seconds_of(lambda: training.save_checkpoint(1, 1))
    saved = folder_bytes(training.output)
    sampling = 0.0
    if config.sample_count:  # whose first step is in `save`
        passes = math.ceil(config.sample_count / BATCH) * (config.sample_steps - 1)
        sampling = passes * _sampling_seconds(training)
    return StepCosts(step, save + sampling, save, saved, saved)


def _recorded_costs(
    plain: StepCosts,
    training: Training,
    config: TrainConfig,
    begun: Index | None,
    record: RecordConfig,
) -> StepCosts:
    """What recording adds to them; `begun` is the recording that there is already."""
    dataset, ledger, folder = training.dataset, training.ledger, training.output
    index = begun or plan_recording(folder, config, record, training.network, dataset, ledger)
    intervals, by_bin = index.features[INTERVALS], index.features[TIMESTEPS]
    network, accelerator, weights = training.network, training.accelerator, record.weights
    training.recording = Recorder(index, network, ledger, accelerator, weights)
    samples, visits = len(dataset), config.checkpoint_every
    row = interval_row_costs(folder / "interval", intervals, len(weights), visits, samples)
    row += row_costs(folder / "bins", bin_columns(by_bin), samples)
    few = replace(ledger, size=min(samples, CHUNK))
    kept = Recorder(index, network, few, accelerator, weights)
    save = seconds_of(lambda: kept.save(folder)) / few.size
    sums = FLOAT * samples * (len(weights) + record.bins) * intervals.layout.size
    return replace(
        plain,
        visit=_step_seconds(training),
        checkpoint=plain.checkpoint + samples * row.seconds,
        state=plain.state + samples * save,
        checkpoint_bytes=plain.checkpoint_bytes + int(samples * row.disk),
        state_bytes=plain.state_bytes + sums,
        held=sums,
    )


def _step_seconds(training: Training) -> float:
    """Seconds per visit."""
    batch = training.ledger.batches(0, training.config.batch_size)[0]

    def step() -> None:
        training.steps = [training.step(0, 0, batch)]

    return seconds_of(step) / len(batch)


def _sampling_seconds(training: Training) -> float:
    return seconds_of(
        lambda: sample(
            training.network,
            Making(training.scheduler, training.dataset.shape),
            range(1),
            seed=0,
            steps=1,
            shown=False,
        )
    )
