"""What training and generation will need, by a few steps of a network of their own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrac.data.dataset import ImageDataset
from retrac.diffusion.device import choose_device
from retrac.diffusion.sampling import BATCH, Making, sample
from retrac.estimate import PASSES, Estimate, folder_bytes, peak_bytes, scratch, seconds_of
from retrac.gradients.weights import WEIGHTS
from retrac.training.config import TrainConfig
from retrac.training.generation import labels_for
from retrac.training.generation import refuse_unfit as refuse_unfit_images
from retrac.training.index import CHUNK, Index, IndexedCheckpoint, Rows
from retrac.training.ledger import Ledger
from retrac.training.loop import (
    STATE_SECONDS,
    Training,
    first_weights,
    make_accelerator,
    refuse_unfit_training,
)
from retrac.training.recording import NoRecording, Recorder, lay_out, steps_ahead
from retrac.training.resume import latest_state
from retrac.training.run import Run, choose_checkpoints
from retrac.training.state import read_point

LOOK = 5
"""Steps to look ahead before a recording is measured; enough to see what a step costs."""
FLOAT = 4


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
        begin: seconds, once.
        held: bytes of memory that a few steps do not show.
    """

    visit: float
    checkpoint: float
    state: float
    checkpoint_bytes: int
    state_bytes: int
    begin: float = 0.0
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
        costs.begin + seconds + left.checkpoints * costs.checkpoint + states * costs.state,
        memory + costs.held,
        int(max(at_end, before)),
    )


def estimate_training(
    config: TrainConfig, dataset: ImageDataset, output: Path, record: int | None
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
    accelerator = make_accelerator(config)
    ledger = Ledger(config.seed, len(dataset), config.objective.timesteps)
    network = first_weights(config, dataset.shape)
    begun = refuse_unfit_training(output, config, record, dataset, ledger)
    state = latest_state(output)
    left = StepsLeft.of(config, len(dataset), read_point(state).step if state else 0)
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
            ledger,
            network,
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
    model = checkpoint.load_for_generation(run.shape).to(place)
    told = labels_for(run, labels, count, "--labels")[:1]
    seconds = seconds_of(
        lambda: sample(model, run.making, range(1), seed, 1, eta, guidance, told, shown=False)
    )
    pixels = count * math.prod(run.shape)
    return Estimate(passes * seconds, peak_bytes(place.type) + pixels, 2 * pixels)


@dataclass(frozen=True)
class RowCosts:
    """What a sample's row of an index costs to write: seconds, and bytes on disk."""

    seconds: float
    disk: float


def row_costs(
    folder: Path, weights: Sequence[str], size: int, visits: int, samples: int
) -> RowCosts:
    """Write one piece of an index of random numbers into a folder."""
    count = min(samples, CHUNK)
    rows = Rows(
        np.random.default_rng(0).standard_normal((len(weights), count, size), dtype=np.float32),
        np.ones((count, visits), np.float32),
        np.zeros((count, visits), np.int64),
    )
    part = IndexedCheckpoint.create(folder, weights, count, size, visits, count)
    seconds = seconds_of(lambda: part.write(slice(0, count), rows))
    return RowCosts(seconds / count, folder_bytes(folder) / count)


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
    plain: StepCosts, training: Training, config: TrainConfig, begun: Index | None, size: int
) -> StepCosts:
    """What recording adds to them; `begun` is the recording that there is already."""
    dataset, ledger = training.dataset, training.ledger
    folder, device = training.output, training.accelerator.device
    ahead = steps_ahead(config, len(dataset))
    laid = (
        begun.config
        if begun is not None
        else {
            "weights": list(WEIGHTS),
            "seed": config.seed,
            **lay_out(config, size, training.network, dataset, ledger, device, LOOK),
        }
    )
    index = Index(folder, laid)
    training.recording = Recorder(index, training.network, ledger, training.accelerator)
    weights, numbers, samples = index.weights, int(laid["size"]), len(dataset)
    row = row_costs(folder / "rows", weights, numbers, config.checkpoint_every, samples)
    few = replace(ledger, size=min(samples, CHUNK))
    kept = Recorder(index, training.network, few, training.accelerator)
    save = seconds_of(lambda: kept.save(folder)) / few.size
    sums = FLOAT * len(weights) * samples * numbers
    return replace(
        plain,
        visit=_step_seconds(training),
        checkpoint=plain.checkpoint + samples * row.seconds,
        state=plain.state + samples * save,
        checkpoint_bytes=plain.checkpoint_bytes + int(samples * row.disk),
        state_bytes=plain.state_bytes + sums,
        begin=0.0 if begun is not None else ahead * config.batch_size * plain.visit,
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
