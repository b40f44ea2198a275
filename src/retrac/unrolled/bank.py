"""Windows of a training that were replayed without some samples: what truly becomes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from retrac.diffusion.device import choose_device
from retrac.errors import RetracError
from retrac.files import PARTIAL, read_json, write_json, write_whole
from retrac.fingerprints import digest
from retrac.progress import progress
from retrac.training.sample_weights import SampleWeights
from retrac.training.state import read_tensors
from retrac.training.trained import TrainedRun
from retrac.unrolled.window import Window

BANK = "replays"
DESIGN = "design.json"
WEIGHTS = "weights"


@dataclass(frozen=True)
class ReplayBank:
    """A folder of the weights at the end of a window, by the samples that were left out of it.

    These count 0, and batches keep their denominators: what the derivative foretells. The weights
    are those that generate, the moving average where the run keeps one.

    Attributes:
        run: what `retrac train` made.
        from_epoch: whole epochs before the window.
        to_epoch: whole epochs before its end.
    """

    run: TrainedRun
    from_epoch: int
    to_epoch: int

    @property
    def path(self) -> Path:
        """The folder, in the run's."""
        return self.run.path / BANK / f"epoch-{self.from_epoch:04d}-{self.to_epoch:04d}"

    @property
    def design(self) -> dict[str, Any]:
        """What decides the weights, as JSON values."""
        window = [self.from_epoch, self.to_epoch]
        versions = {"torch": torch.__version__, "device": choose_device().type}
        return {"trained": self.run.identity, "window": window, **versions}

    def missing(self, sets: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Those of some sets of samples that were not replayed yet, each of them once."""
        files = {self._file(each): each for each in sets}
        return [each for file, each in files.items() if not file.is_file()]

    def replay(self, sets: Sequence[np.ndarray]) -> None:
        """Replay the window without each of some sets of samples, given by their indices.

        Can be stopped between two of them.

        Raises:
            RetracError: the folder holds another training's, no space is left, or a loss is not
                finite.
        """
        self.refuse_other()
        missing = self.missing(sets)
        if not missing:
            return
        write_json(self.path / DESIGN, self.design)
        steps = (self.to_epoch - self.from_epoch) * self.run.steps_per_epoch
        with progress("replay", len(missing) * steps, "steps") as advance:
            for number, removed in enumerate(missing, start=1):
                counted = np.ones(self.run.size, np.float32)
                counted[removed] = 0
                window = Window(
                    self.run, self.from_epoch, self.to_epoch, weights=SampleWeights(counted)
                )
                for step in window.steps:
                    window.take(step)
                    advance(note=f"{number} of {len(missing)}")
                with write_whole(self._file(removed)) as temporary:
                    save_file({WEIGHTS: window.state().generating.cpu()}, temporary)

    def weights(self, removed: np.ndarray) -> Tensor:
        """`[P]` at the end without some samples.

        Raises:
            RetracError: the file is damaged.
        """
        path = self._file(removed)
        try:
            return read_tensors(path)[WEIGHTS]
        except (RetracError, KeyError) as error:
            raise RetracError(f"{path} is damaged ({error}): delete it and run again") from error

    def _file(self, removed: np.ndarray) -> Path:
        return self.path / f"without-{digest(np.sort(removed).astype(np.int64))}.safetensors"

    def refuse_other(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            RetracError: it does.
        """
        path = self.path / DESIGN
        if path.is_file():
            if read_json(path) != self.design:
                raise RetracError(
                    f"{self.path} is of another training, version of torch or device: delete the "
                    "folder, to replay again"
                )
            return
        if self.path.exists() and any(each.suffix != PARTIAL for each in self.path.iterdir()):
            raise RetracError(f"{self.path} holds something else: move it away")
