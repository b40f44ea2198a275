"""Images of a run, as files."""

from collections.abc import Sequence
from pathlib import Path

from retrac.data.grid import grid
from retrac.data.images import to_pil
from retrac.diffusion.device import choose_device
from retrac.diffusion.sampling import sample
from retrac.errors import RetracError
from retrac.files import write_whole
from retrac.training.run import Run, choose_checkpoints


def labels_for(run: Run, given: Sequence[str], count: int, option: str) -> tuple[str, ...]:
    """The label or prompt of each of so many images that have none of their own.

    Args:
        run: whose network makes or sees them.
        given: one for all, or one for each; none for the labels of samples, one after the other.
        count: of images.
        option: what gives them, for errors.

    Raises:
        RetracError: another number of them, or the network is told nothing.
    """
    if not given:
        return run.generated_labels(range(count))
    if not run.told:
        raise RetracError(f"{option}: the network of {run.path} is told nothing of an image")
    if len(given) not in (1, count):
        raise RetracError(
            f"{option}: give one for all, or one for each of {count}: not {len(given)}"
        )
    return tuple(given) * (count // len(given))


def generate_images(
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
) -> Path:
    """Write `folder/0000.png`, `0001.png`, …, and all of them on a sheet beside the folder.

    The sheet lies outside, so that the folder can be given as queries.

    Args:
        run: a training run.
        folder: files of the same names in it are replaced.
        count: how many images.
        seed, steps, eta, guidance: as for `retrac.diffusion.sampling.sample`.
        epoch: of the checkpoint; the last by default.
        device: "auto", "cpu", "cuda" or "mps".
        labels: or prompts, as for `labels_for`.

    Returns:
        The path of the sheet.

    Raises:
        RetracError: other images in the folder, no such checkpoint, numbers out of range, or no
            space left.
    """
    folder = folder.resolve()
    refuse_unfit(run, folder, count, steps, eta)
    checkpoint = choose_checkpoints(run, () if epoch is None else (epoch,))[-1]
    place = choose_device(device)
    run.encode_on(place)
    images = sample(
        checkpoint.load_averaged(run.shape).to(place),
        run.making,
        range(count),
        seed,
        steps,
        eta,
        guidance,
        labels_for(run, labels, count, "--labels"),
    ).images
    for index, image in enumerate(images):
        with write_whole(folder / f"{index:04d}.png") as temporary:
            to_pil(image).save(temporary, format="png")
    sheet = folder.with_name(f"{folder.name}-sheet.png")
    with write_whole(sheet) as temporary:
        grid(images).save(temporary, format="png")
    return sheet


def refuse_unfit(run: Run, folder: Path, count: int, steps: int, eta: float) -> None:
    """Refuse what cannot be generated, or not into that folder.

    Raises:
        RetracError: other images in the folder, or numbers out of range.
    """
    timesteps = run.timesteps
    if count < 1 or not 1 <= steps <= timesteps or not 0 <= eta <= 1:
        raise RetracError(
            f"--count must be at least 1, --steps 1 to {timesteps} and --eta 0 to 1, not {count}, "
            f"{steps} and {eta}"
        )
    names = {f"{index:04d}.png" for index in range(count)}
    if other := sorted(file.name for file in folder.glob("*.png") if file.name not in names):
        raise RetracError(
            f"{folder} holds other images ({other[0]}), which would be taken for queries with "
            "these: choose another --output"
        )
