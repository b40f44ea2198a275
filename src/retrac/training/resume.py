"""Beginning a run, or finding out where an earlier one stopped."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrac.data.dataset import ImageDataset
from retrac.errors import RetracError
from retrac.files import PARTIAL, read_json, write_json
from retrac.training.config import FREE, TrainConfig
from retrac.training.ledger import Ledger
from retrac.training.run import CHECKPOINTS, RUN
from retrac.training.state import read_point, whole_states
from retrac.training.trained import TrainedRun, new_record


def begin(
    output: Path, config: TrainConfig, dataset: ImageDataset, ledger: Ledger, parameters: int
) -> None:
    """Write `run.json` of a training that `refuse_unfit` lets pass, or what is new in it."""
    record = _record(config, dataset, ledger)
    path = output / RUN
    if not path.is_file():
        write_json(path, {**record, "parameters": parameters})
        return
    earlier = read_json(path)
    if earlier["config"] != record["config"]:
        write_json(path, {**earlier, "config": record["config"]})


def refuse_unfit(output: Path, config: TrainConfig, dataset: ImageDataset, ledger: Ledger) -> None:
    """Refuse a folder in which such a training can neither begin nor go on.

    Raises:
        RetracError: the folder holds a damaged run, one of other settings, of another dataset or
            with more epochs already, or other files.
    """
    record = _record(config, dataset, ledger)
    if not (output / RUN).is_file():
        if output.exists() and (not output.is_dir() or not _only_leftovers(output)):
            raise RetracError(f"{output} exists and is not a run; choose another --output")
        return
    earlier = TrainedRun.open(output).record
    if earlier["dataset"] != record["dataset"]:
        raise RetracError(
            f"{output} was trained on another dataset ({_dataset(earlier)}, now {_dataset(record)})"
            "; choose another --output, or restore the dataset"
        )
    differences = _differences(earlier["config"], record["config"])
    if differences:
        raise RetracError(
            f"{output} holds a run with other settings ({'; '.join(differences)}): choose another "
            "--output, or give the same settings to go on with it"
        )
    latest = latest_state(output)
    steps = config.epochs * math.ceil(len(dataset) / config.batch_size)
    if latest is not None and read_point(latest).step > steps:
        raise RetracError(
            f"{output} is trained beyond epoch {config.epochs} already: give more --epochs, or "
            "choose another --output"
        )


def latest_state(output: Path) -> Path | None:
    """The folder with the most steps done, among checkpoints and the rolling state."""
    folders = whole_states(output / CHECKPOINTS) + whole_states(output / "state")
    return max(folders, key=lambda folder: read_point(folder).step, default=None)


def _record(config: TrainConfig, dataset: ImageDataset, ledger: Ledger) -> dict[str, Any]:
    return new_record(replace(config, data=config.data.located()), dataset, ledger)


def _only_leftovers(output: Path) -> bool:
    """Whether nothing is there but what a killed training left before its first whole file."""
    return all(path.suffix == PARTIAL for path in output.iterdir())


def _differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    for key in sorted({*earlier, *now} - FREE - {"dataset_path"}):
        before, after = earlier.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after)
        elif before != after:
            found.append(f"{key} was {before}, now {after}")
    return found


def _dataset(record: dict[str, Any]) -> str:
    dataset = record.get("dataset", {})
    return f"{dataset.get('name')}, {dataset.get('size')} samples, {dataset.get('shape')}"
