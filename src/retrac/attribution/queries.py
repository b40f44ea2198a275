"""The images to be explained: training samples, generated images, or files."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from retrac.attribution.asked import Journey, Queries
from retrac.attribution.config import QueryConfig
from retrac.attribution.ranking import evenly_spread
from retrac.data.images import read_images
from retrac.diffusion.device import choose_device
from retrac.diffusion.sampling import sample
from retrac.errors import RetracError
from retrac.training.generation import labels_for
from retrac.training.run import Run

STEPS = 50
"""Of the sampler, where training has as many timesteps."""
GENERATED = re.compile(r"generated/seed-(\d+)/(\d{4,})")
"""The id of a generated query tells its noise."""
WHITE = 127
"""Pixels of a mask above this count."""
ASKED = "--query-labels"
KINDS = ("train:", "generated:", "trajectory:", "each:")


def open_queries(
    run: Run, asked: QueryConfig | str, seed: int = 0, device: str = "auto"
) -> Queries:
    """Find the queries that a text names.

    Args:
        run: the run that they are put to.
        asked: settings, or their `queries` alone: `generated:8` (images that the run's last
            checkpoint makes), `trajectory:8` (likewise, looked at along the way there), `train:16`
            (16 samples evenly spread over the training set), `train:3,17` (these samples;
            `train:3,` for a single one), `each:2` (two of every label, evenly spread among those
            that have it), several of these (`train:8+generated:8`), or the path of an image or of
            a folder.
        seed: of generated queries, where a text is given.
        device: that generates them: "auto", "cpu", "cuda" or "mps".

    Raises:
        RetracError: no such samples, files or device, images of another size, labels that do not
            fit, or what `sample` refuses.
    """
    config = QueryConfig(asked, seed) if isinstance(asked, str) else asked
    text = config.queries
    parts = _parts(text)
    if len(parts) > 1 and any(part.startswith("trajectory:") for part in parts):
        raise RetracError(f"queries {text!r}: trajectory:N stands alone")
    masks, made = _masks(run, config), to_generate(text)
    if config.query_labels and all(part.startswith(("train:", "each:")) for part in parts):
        raise RetracError(f"{ASKED}: samples have their own")
    labels = list(labels_for(run, config.query_labels, made, ASKED) if made else ())
    found = []
    for part in parts:
        count = to_generate(part)
        found.append(
            generated(run, part, config, labels[:count], device)
            if count
            else _found(run, part, config)
        )
        del labels[:count]
    joined = replace(_joined(found), guidance=config.query_guidance)
    return joined if masks is None else replace(joined, masks=_of_each(masks, len(joined), config))


def generated(
    run: Run, part: str, config: QueryConfig, labels: Sequence[str], device: str = "auto"
) -> Queries:
    """Images that the run's last checkpoint makes, with a label each."""
    keep, seed, count = part.startswith("trajectory:"), config.query_seed, len(labels)
    made = sample(
        _maker(run, device),
        run.making,
        range(count),
        seed,
        generation_steps(run),
        guidance=config.query_guidance,
        labels=labels,
        keep=keep,
    )
    return Queries(
        _generated_name(part, seed),
        made.images,
        tuple(_generated_id(seed, index, part.partition(":")[0]) for index in range(count)),
        tuple(labels),
        None if made.clean is None else Journey(made.timesteps, made.clean),
    )


def _found(run: Run, text: str, config: QueryConfig) -> Queries:
    """Queries that are there: samples, or files."""
    if match := re.fullmatch(r"train:(\d+)", text):
        count, size = _count(match[1], text), len(run.dataset)
        if count > size:
            raise RetracError(f"queries {text!r}: the training set has only {size} samples")
        return training_samples(run, f"train-{count}", evenly_spread(size, count))
    if match := re.fullmatch(r"train:((?:\d+,)+\d*)", text):
        indices = [int(index) for index in match[1].split(",") if index]
        return training_samples(run, "train-" + "-".join(map(str, indices[:8])), indices)
    if match := re.fullmatch(r"each:(\d+)", text):
        count = _count(match[1], text)
        return training_samples(run, f"each-{count}", _of_each_label(run, count, text))
    if not Path(text).exists():
        raise RetracError(
            f"queries {text!r}: neither generated:N, trajectory:N, train:N, train:I,J, each:N, nor "
            "a file or folder that exists"
        )
    path = Path(text)
    ids, images = read_images(path, run.shape)
    given, count = config.query_labels, len(ids)
    labels = labels_for(run, given, count, ASKED) if given else ("",) * count
    return Queries(path.stem or "images", images, tuple(ids), tuple(labels))


def to_generate(text: str) -> int:
    """How many images a text asks to be generated."""
    found = [re.fullmatch(r"(generated|trajectory):(\d+)", part) for part in _parts(text)]
    return sum(_count(match[2], text) for match in found if match)


def stand_in(run: Run, config: QueryConfig) -> Queries:
    """As `open_queries`, but with training samples in place of images yet to be generated."""
    masks = _masks(run, config)
    if made := to_generate(config.queries):  # what is refused is refused before it is estimated
        run.conditions(labels_for(run, config.query_labels, made, ASKED))
    found = []
    for part in _parts(config.queries):
        if count := to_generate(part):
            samples = [index % len(run.dataset) for index in range(count)]
            name = _generated_name(part, config.query_seed)
            found.append(training_samples(run, name, samples))
        else:
            found.append(_found(run, part, config))
    joined = _joined(found)
    if masks is not None:
        _of_each(masks, len(joined), config)
    return joined


def regenerated(run: Run, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """What a run makes from the noises from which another made its generated queries.

    Args:
        run: of the same shape.
        ids: of queries; those that were not generated are left out.

    Returns:
        Id -> uint8 `[C, H, W]`.
    """
    wanted: dict[int, list[int]] = {}
    for name in ids:
        if match := GENERATED.fullmatch(name):
            wanted.setdefault(int(match[1]), []).append(int(match[2]))
    found: dict[str, np.ndarray] = {}
    for seed, indices in wanted.items():
        labels = run.generated_labels(indices)
        steps = generation_steps(run)
        images = sample(_maker(run, "auto"), run.making, indices, seed, steps, labels=labels).images
        found |= {
            _generated_id(seed, index): image for index, image in zip(indices, images, strict=True)
        }
    return found


def generation_steps(run: Run) -> int:
    """Steps in which a query is generated."""
    return min(STEPS, run.timesteps)


def training_samples(run: Run, name: str, indices: Sequence[int] | np.ndarray) -> Queries:
    """Samples of the training set as queries.

    Raises:
        RetracError: an index outside the training set.
    """
    dataset = run.dataset
    for index in indices:
        if not 0 <= index < len(dataset):
            raise RetracError(
                f"there is no sample {index}: the training set has {len(dataset)}, from 0"
            )
    return Queries(
        name,
        dataset.images[list(indices)],
        tuple(dataset.ids[index] for index in indices),
        tuple(run.labels[index] for index in indices),
    )


def _parts(text: str) -> list[str]:
    parts = text.split("+")
    return parts if all(part.startswith(KINDS) for part in parts) else [text]


def _of_each_label(run: Run, count: int, text: str) -> list[int]:
    labels = np.array(run.dataset.labels or ())
    if not len(labels):
        raise RetracError(f"queries {text!r}: the training set has no labels")
    found = []
    for label in np.unique(labels):
        having = np.flatnonzero(labels == label)
        found += [int(having[place]) for place in evenly_spread(len(having), count)]
    return sorted(found)


def _joined(parts: Sequence[Queries]) -> Queries:
    if len(parts) == 1:
        return parts[0]
    return Queries(
        "-".join(part.name for part in parts),
        np.concatenate([part.images for part in parts]),
        sum((part.ids for part in parts), ()),
        sum((part.labels for part in parts), ()),
    )


def _masks(run: Run, config: QueryConfig) -> np.ndarray | None:
    """The regions that images in a file or folder show, bool `[n, H, W]`; None where all counts."""
    if (path := config.query_mask) is None:
        return None
    _, found = read_images(path, (3, *run.shape[1:]))
    masks: np.ndarray = found.mean(1) > WHITE
    if not masks.any((1, 2)).all():
        raise RetracError(f"--query-mask {path}: nothing is white, so nothing would count")
    return masks


def _of_each(masks: np.ndarray, count: int, config: QueryConfig) -> np.ndarray:
    """One for each of so many queries."""
    if len(masks) not in (1, count):
        raise RetracError(
            f"--query-mask {config.query_mask}: give one for all, or one for each of {count} "
            f"queries, not {len(masks)}"
        )
    return np.broadcast_to(masks, (count, *masks.shape[1:])).copy()


def _maker(run: Run, device: str) -> nn.Module:
    place = choose_device(device)
    run.encode_on(place)
    network: nn.Module = run.checkpoints[-1].load_averaged(run.shape)
    return network.to(place)


def _generated_id(seed: int, index: int, kind: str = "generated") -> str:
    return f"{kind}/seed-{seed}/{index:04d}"


def _generated_name(part: str, seed: int) -> str:
    return f"{part.replace(':', '-')}-seed-{seed}"


def _count(number: str, text: str) -> int:
    if int(number) < 1:
        raise RetracError(f"queries {text!r}: ask for at least one")
    return int(number)
