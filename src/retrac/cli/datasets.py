"""`retrac datasets`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Datasets:
    """List the datasets known by name, and what else can be trained on."""

    def __call__(self) -> None:
        """Print them."""
        from rich.console import Console
        from rich.table import Table

        from retrac.data.named import NAMED

        table = Table(
            "name", "samples", "image", "from", "what it is", box=None, header_style="bold"
        )
        for known in NAMED.values():
            side, channels = known.resolution, known.channels
            table.add_row(
                known.name,
                f"{known.size:,}",
                f"{side}×{side} {'grey' if channels == 1 else 'RGB'}",
                known.source or "embedded",
                f"{known.description} {known.note}".strip(),
            )
        console = Console()
        console.print(table)
        console.print(
            "\nAlso: a folder of images, an .npz file, or hf:org/name from the hub. Datasets from "
            "the hub take a local copy with --dataset-path.\nEach name brings its training "
            "settings: retrac train --dataset NAME --help"
        )
