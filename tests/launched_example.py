"""One of several processes: runs the example, and writes down which events it asked for."""

import runpy
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

import retrac

if __name__ == "__main__":
    events, asked = retrac.Ledger.events, []

    def noted(self: retrac.Ledger, epoch: int, indices: torch.Tensor, shape: tuple[int, ...]):
        found = events(self, epoch, indices, shape)
        if isinstance(indices, torch.Tensor):  # by the example
            asked.append((np.full(len(indices), epoch), indices.numpy(), found.timesteps.numpy()))
        return found

    retrac.Ledger.events = noted
    output = Path(sys.argv[1])
    example = Path(__file__).parents[1] / "examples" / "own_loop.py"
    sys.argv[0] = str(example)
    runpy.run_path(str(example), run_name="__main__")
    epochs, indices, timesteps = map(np.concatenate, zip(*asked, strict=True))
    rank = PartialState().process_index
    np.savez(output / f"asked-{rank}.npz", epoch=epochs, index=indices, timestep=timesteps)
