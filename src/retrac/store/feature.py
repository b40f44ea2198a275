"""A stored feature: what `index.json` says of it, and its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retrac.errors import RetracError
from retrac.files import remove
from retrac.gradients.sketch_layout import SketchLayout
from retrac.store.table import Table


@dataclass(frozen=True)
class StoredFeature:
    """A feature in an index.

    Attributes:
        folder: of the index.
        name: of the feature.
        config: `measurements` whose gradients it has; `weights` under which they are added up;
            `sketch`, their layout; and what else says which draws they are of.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]

    @cached_property
    def layout(self) -> SketchLayout:
        """Of its sketches."""
        return SketchLayout.from_json(self.config["sketch"])

    @property
    def weights(self) -> list[str]:
        """Names of the weights under which gradients are added up."""
        return list(self.config["weights"])

    def table(self, epoch: int, what: str) -> Table:
        """What it has at a checkpoint under a weight, or of its visits."""
        return Table(self.folder / f"epoch-{epoch:04d}" / f"{self.name}-{what}")

    def remove(self, epoch: int) -> None:
        """Delete what it has at a checkpoint."""
        for path in self.folder.glob(f"epoch-{epoch:04d}/{self.name}-*"):
            remove(path)

    def begun(self) -> list[int]:
        """Epochs of the checkpoints at which it has anything, rising."""
        folders = {path.parent.name for path in self.folder.glob(f"epoch-*/{self.name}-*")}
        return sorted(int(name.removeprefix("epoch-")) for name in folders)

    def require(self, epochs: Sequence[int], weight: str) -> None:
        """Refuse it where it is not whole under a weight at some checkpoint.

        Raises:
            RetracError: it is not.
        """
        for epoch in sorted(epochs):
            if not self.table(epoch, weight).is_whole:
                raise RetracError(
                    f"{self.folder} is not whole: the checkpoint of epoch {epoch} is not indexed; "
                    "repeat the command that made it"
                )
