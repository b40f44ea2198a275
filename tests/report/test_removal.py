"""The picture of removal: a row for each query, a column for each way."""

import numpy as np

from retrac.report.removal import regenerated_images


def test_every_image_stands_under_its_way_with_its_similarity() -> None:
    stream = np.random.default_rng(0)
    images = stream.integers(0, 256, (2, 3, 3, 8, 8)).astype(np.uint8)
    queries = {name: ways[0] for name, ways in zip("ab", images, strict=True)}
    made = {
        name: {"random": ways[0], "retrac": ways[1], "pixels": ways[2]}
        for name, ways in zip("ab", images, strict=True)
    }
    figure = regenerated_images(queries, made, 20, 128)
    cells = figure.axes
    assert len(cells) == 8
    assert [cell.get_title() for cell in cells[:4]] == [
        "query\n",
        "without 20\nat random",
        "without the first 20\nby ReTrac",
        "without the 20\nnearest in pixels",
    ]
    assert cells[4].get_xlabel().startswith("b\n")
    assert cells[5].get_xlabel() == "SSIM 1.00\n" and cells[6].get_xlabel() != "SSIM 1.00\n"
    told = figure.get_suptitle().replace("\n", " ")
    assert "without 20 of 128 samples" in told
