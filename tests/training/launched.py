"""One of several processes: trains, and writes down which samples it was given."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from retrac.training import loop
from retrac.training.config import RecordConfig, TrainConfig

if __name__ == "__main__":
    settings, output = (Path(argument) for argument in sys.argv[1:])
    inputs, given = loop.training_inputs, []

    def noted(dataset: Any, ledger: Any, epoch: int, indices: np.ndarray, flip: bool) -> Any:
        given.append([epoch, indices.tolist()])
        return inputs(dataset, ledger, epoch, indices, flip)

    loop.training_inputs = noted
    config = TrainConfig.from_json(json.loads(settings.read_text()))
    loop.train(config, output, RecordConfig(300))
    rank = PartialState().process_index
    output.with_name(f"{output.name}-{rank}.json").write_text(json.dumps(given))
