"""Whether a trained model and some samples belong together, and are still what they were."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrac.data.dataset import ImageDataset
from retrac.diffusion.configs import read_config
from retrac.diffusion.pipelines import Pipeline
from retrac.diffusion.schedule import process_of
from retrac.errors import RetracError
from retrac.fingerprints import digest, fingerprint
from retrac.training.config import AdoptConfig

FIXED = ("UNet2DModel", "DiTTransformer2DModel")
"""Families that see images of one size; others see any that their levels and patches divide."""
OF_FLOWS, OF_DIFFUSIONS = ("inverse-square", "cosine-map"), ("snr", "min-snr")
"""Weightings."""


def refuse_unfit(
    config: AdoptConfig,
    pipeline: Pipeline,
    images: tuple[int, int, int],
    seen: tuple[int, int, int],
) -> None:
    """Refuse a model that is unknown, or that such samples cannot have trained.

    Args:
        config: what is said of the model.
        pipeline: the model.
        images: (C, H, W) of the samples.
        seen: of what its network sees of them.

    Raises:
        RetracError: which.
    """
    _refuse_images(config, pipeline, images, seen)
    network, model = pipeline.config, f"the model in {config.pipeline}"
    if pipeline.family == "UNet2DModel" and network.get("out_channels") != seen[0]:
        raise RetracError(f"{model} predicts variances, too, which is not known of U-Nets here")
    if network.get("class_embed_type") is not None:
        raise RetracError(
            f"{model} embeds classes by {network['class_embed_type']!r}, which is not known here"
        )
    flow = process_of(pipeline.scheduler).prediction == "velocity"
    if config.weighting in OF_FLOWS and not flow:
        raise RetracError(f"--weighting {config.weighting} is of flow matching, but {model} is not")
    if config.weighting in OF_DIFFUSIONS and flow:
        raise RetracError(
            f"--weighting {config.weighting} is of diffusion, but {model} is of flow matching"
        )
    if config.preconditioned and not flow:
        raise RetracError(f"--preconditioned is of flow matching, but {model} is not")
    if config.density != "uniform" and not flow:
        raise RetracError(f"--density {config.density} is of flow matching, but {model} is not")
    usual = AdoptConfig(config.pipeline)
    for name in () if pipeline.told_text else ("caption", "text_tokens", "guidance"):
        if getattr(config, name) != getattr(usual, name):
            raise RetracError(f"--{name.replace('_', '-')}: {model} is told no text")
    if config.classes and pipeline.classes is None:
        raise RetracError(f"--classes: {model} is told none")
    if config.drop and pipeline.no_class is None and not pipeline.told_text:
        raise RetracError(
            f"--drop {config.drop:g}: {model} has no class that stands for none, and is told no "
            "text"
        )
    for folder in config.weights:
        pipeline.refuse_other(folder)
    of_lora = [pipeline.is_lora(folder) for folder in config.weights]
    if any(of_lora) and not all(of_lora):
        raise RetracError("--weights: some folders hold a LoRA, and others do not")


def fingerprints(
    pipeline: Pipeline, folders: Sequence[Path], dataset: ImageDataset
) -> dict[str, Any]:
    """What `run.json` says of a model and of its samples' labels, to tell when they change.

    Args:
        pipeline: the model.
        folders: with its weights.
        dataset: the samples.
    """
    return {
        "weights": [fingerprint(*pipeline.weights(folder)) for folder in folders],
        "parts": _parts(pipeline, folders),
        "labels": digest([list(dataset.labels or ()), list(dataset.classes or ())]),
    }


def refuse_changed(
    record: Mapping[str, Any],
    run: Path,
    pipeline: Pipeline,
    folders: Sequence[Path],
    dataset: ImageDataset,
) -> None:
    """Refuse a model or labels that are not what `run.json` says.

    Args:
        record: what it says.
        run: the run folder, for errors.
        pipeline, folders, dataset: as `fingerprints` has them.

    Raises:
        RetracError: which have changed.
    """
    now = fingerprints(pipeline, folders, dataset)
    changed = [
        *(
            f"the weights in {folder}"
            for folder, one, other in zip(folders, now["weights"], record["weights"], strict=True)
            if one != other
        ),
        *(
            f"the {name} of {pipeline.path}"
            for name, known in now["parts"].items()
            if record["parts"].get(name) != known
        ),
    ]
    if now["labels"] != record["labels"]:
        changed.append(f"the labels of {dataset.name!r}")
    if changed:
        raise RetracError(
            f"{changed[0]} changed after {run} was made: adopt the model again, into another folder"
        )


def _parts(pipeline: Pipeline, folders: Sequence[Path]) -> dict[str, str]:
    """Fingerprints of all that decides losses beside the weights that were trained."""
    found = dict(pipeline.fingerprints)
    if pipeline.is_lora(folders[0]):
        found["network"] = fingerprint(*pipeline.weights(pipeline.path))
    return found


def _refuse_images(
    config: AdoptConfig,
    pipeline: Pipeline,
    images: tuple[int, int, int],
    seen: tuple[int, int, int],
) -> None:
    network, folder, model = pipeline.config, pipeline.encoder, f"the model in {config.pipeline}"
    of_images = network if folder is None else read_config(folder)
    if (channels := of_images.get("in_channels")) != images[0]:
        raise RetracError(f"{model} is for {channels} channels, but the images have {images[0]}")
    if any(side % pipeline.factor for side in images[1:]):
        raise RetracError(
            f"{model} takes {pipeline.factor} pixels for one latent, which does not divide "
            f"{images[1]}x{images[2]}: give another --resolution"
        )
    packed = pipeline.family == "FluxTransformer2DModel"
    channels = int(network.get("in_channels", 0)) // (4 if packed else 1)
    if pipeline.family in FIXED:
        size = network.get("sample_size")
        sides = (size, size) if isinstance(size, int) else tuple(size or seen[1:])
        fits, told = sides == seen[1:], f"{sides[0]}x{sides[1]}"
    else:
        parts = (
            2
            if packed
            else network.get("patch_size") or 2 ** (len(network.get("block_out_channels", ())) - 1)
        )
        fits, told = not any(side % parts for side in seen[1:]), f"sides that {parts} divides"
    if channels != seen[0] or not fits:
        raise RetracError(
            f"{model} sees {channels} channels of {told}, but these images give {seen[0]} of "
            f"{seen[1]}x{seen[2]}: give another --resolution"
        )
