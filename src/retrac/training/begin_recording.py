"""Beginning a run's recording, or going on with it."""

from pathlib import Path
from typing import Any

import numpy as np
from diffusers import UNet2DModel
from torch import Tensor

from retrac.data.dataset import ImageDataset
from retrac.diffusion.loss import Objective
from retrac.errors import RetracError
from retrac.gradients.allocation import allocate, measure_sides
from retrac.gradients.sketch_layout import SketchLayout
from retrac.store.bins import ONE, TIMESTEPS
from retrac.store.index import Index
from retrac.store.intervals import INTERVALS
from retrac.training.config import RecordConfig, TrainConfig
from retrac.training.inputs import training_inputs
from retrac.training.ledger import Ledger
from retrac.training.recording import RECORDED
from retrac.training.resume import latest_state
from retrac.training.trained import new_record, training_identity


def earlier_recording(
    output: Path,
    config: TrainConfig,
    record: RecordConfig | None,
    dataset: ImageDataset,
    ledger: Ledger,
) -> Index | None:
    """The recording that a training goes on with; None if it begins one, or has none.

    Args:
        output: the run folder.
        config: of the training.
        record: what is recorded; None for a training that is not.
        dataset: the training set.
        ledger: of the run.

    Raises:
        RetracError: the run has a recording of another training or of other settings, was begun
            without one, or with one that is not asked for.
    """
    path = output / RECORDED
    if record is None:
        if path.exists():
            raise RetracError(f"{output} is being recorded: give --record to go on with it")
        return None
    index = Index.resumed(path, _settings(config, record, dataset, ledger))
    lacks_something = index.config != Index.open(path).config if index else latest_state(output)
    if lacks_something:
        raise RetracError(
            f"{output} was begun without --record, or by a version that records less: what was not "
            "recorded from the start cannot be made up for; train into another --output, or use "
            "`retrac index`"
        )
    return index


def begin_recording(
    output: Path,
    config: TrainConfig,
    record: RecordConfig,
    network: UNet2DModel,
    dataset: ImageDataset,
    ledger: Ledger,
) -> Index:
    """Begin a run's recording, unless there is one to go on with.

    Args:
        output, config, record, dataset, ledger: as for `earlier_recording`.
        network: with its first weights; not changed.

    Raises:
        RetracError: as `earlier_recording`.
    """
    index = earlier_recording(output, config, record, dataset, ledger)
    if index is None:
        index = plan_recording(output / RECORDED, config, record, network, dataset, ledger)
        index.save()
    return index


def plan_recording(
    path: Path,
    config: TrainConfig,
    record: RecordConfig,
    network: UNet2DModel,
    dataset: ImageDataset,
    ledger: Ledger,
) -> Index:
    """A new recording, with sketches laid out by the shapes of gradients; nothing is written.

    Args:
        path: its folder.
        config, record, network, dataset, ledger: as for `begin_recording`.
    """
    few = np.arange(min(2, ledger.size))

    def losses() -> Tensor:
        batch = training_inputs(dataset, ledger, 0, few, config.flip)
        return Objective.of(config.objective).losses(network, *batch.on(network.device))

    sides = measure_sides(network, losses)
    layout = SketchLayout.of(config.seed, sides, allocate(sides, record.sketch_size))
    settings = _settings(config, record, dataset, ledger)
    return Index.planned(path, settings).with_sketches(lambda: layout)


def _settings(
    config: TrainConfig, record: RecordConfig, dataset: ImageDataset, ledger: Ledger
) -> dict[str, Any]:
    common = {"measurements": ["loss"], "sketch_size": record.sketch_size}
    return {
        "kind": "recorded",
        "trained": training_identity(new_record(config, dataset, ledger)),
        "parameters": ".*",
        "features": {
            INTERVALS: {
                **common,
                "weights": [weight.__name__ for weight in record.weights],
                "replay": "all",
            },
            TIMESTEPS: {
                **common,
                "weights": [ONE],
                "draws": "visits",
                "bins": record.bins,
                "parts": 1,
            },
        },
    }
