"""Norms as figures, with the numbers beside them."""

from pathlib import Path

from retrac.attribution.norms import Norms
from retrac.files import write_whole
from retrac.report.canvas import save_png
from retrac.report.figures import sample_norms, training_norms


def write_norms(result: Norms, folder: Path) -> list[Path]:
    """Write `sample.png`, `training.png` and the numbers as CSV and zarr; returns all paths."""
    result.save(folder)
    data = result.dataset
    epochs = [int(epoch) for epoch in data["checkpoint"].values]
    save_png(
        sample_norms(
            data["timestep"].values,
            data["sample_norm"].values,
            epochs,
            [[int(timestep)] for timestep in data["sample_timestep"].values],
            f"Gradient norm of {result.config['sample id']} by timestep, with the noise of its "
            "last event before each checkpoint",
        ),
        folder / "sample.png",
    )
    save_png(
        training_norms(data["train_timestep"].values, data["train_norm"].values, epochs),
        folder / "training.png",
    )
    for name, variables in {
        "sample.csv": ["sample_norm"],
        "training.csv": ["train_timestep", "train_norm"],
    }.items():
        with write_whole(folder / name) as temporary:
            data[variables].to_dataframe().to_csv(temporary)
    return [folder / name for name in ("sample.png", "training.png", "sample.csv", "training.csv")]
