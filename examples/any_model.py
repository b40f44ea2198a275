"""What a model that was trained elsewhere owes to which image, for every family that is known.

    python examples/any_model.py out/any "Stable Diffusion 3"

In place of a downloaded model it takes a tiny one of that family, with random weights, and
scikit-learn's digits. With your own, the two steps below are `retrac adopt` and
`retrac attribute` on the command line.
"""

import argparse
from pathlib import Path

import numpy as np
import tiny_models
from PIL import Image
from sklearn.datasets import load_digits

import retrac

TEXTS = {"caption": "a handwritten {label}", "text_tokens": tiny_models.TOKENS}
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def write_images(folder: Path, side: int, count: int) -> None:
    """Digits in colour, in a folder for each class, which is their label."""
    digits = load_digits()
    for index in range(count):
        grey = (digits.images[index] * 255 / 16).round().astype(np.uint8)
        path = folder / WORDS[digits.target[index]] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).resize((side, side)).convert("RGB").save(path)


def main() -> None:
    """Adopt, attribute, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("family", choices=tiny_models.PIPELINES)
    parser.add_argument("--samples", type=int, default=64)
    given = parser.parse_args()
    of_pixels = given.family.startswith("U-Net")
    write_images(given.output / "images", 8 if of_pixels else 16, given.samples)
    tiny_models.save(given.family, given.output / "model")

    config = retrac.AdoptConfig(
        pipeline=given.output / "model",
        data=retrac.DatasetConfig(dataset=str(given.output / "images")),
        **(TEXTS if given.family in tiny_models.TOLD_TEXTS else {}),
    )
    run = retrac.adopt(config, given.output / "run")
    result = retrac.attribute(run, "generated:2", replay="4")
    print(f"report: {retrac.write_report(result, given.output / 'report.html')}")


if __name__ == "__main__":
    main()
