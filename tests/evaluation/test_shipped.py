"""The benchmark that comes with the package, and reading others' scores for it."""

from pathlib import Path

import numpy as np
import pytest

from retrac.data.open import open_dataset
from retrac.errors import RetracError
from retrac.evaluation.lds import Lds
from retrac.evaluation.shipped import Shipped, read_scores


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    return Shipped.load()


def test_it_is_what_is_promised(shipped: Shipped) -> None:
    subsets, seeds, queries = shipped.losses.shape
    assert subsets >= 48 and seeds == 2 and queries == 48
    assert np.isfinite(shipped.losses).all()
    assert (shipped.subsets.sum(1) == 128).all() and shipped.subsets.shape == (subsets, 256)
    assert [len(rows) for rows in shipped.kinds.values()] == [24, 24]
    assert len({losses.tobytes() for losses in shipped.losses.reshape(-1, queries)}) == 2 * subsets


def test_its_samples_are_those_of_the_embedded_dataset(shipped: Shipped) -> None:
    dataset = open_dataset(shipped.training.data)
    assert dataset.fingerprint == shipped.fingerprint
    for row in shipped.kinds["training images"]:
        own = dataset.ids.index(shipped.queries.ids[row])
        assert (dataset.images[own] == shipped.queries.images[row]).all()


def test_models_of_another_seed_agree_and_a_training_image_in_the_half_is_lost_less(
    shipped: Shipped,
) -> None:
    metric = Lds(shipped.subsets, shipped.losses)
    ceiling = metric.ceiling()
    assert ceiling is not None and 0.4 < ceiling.between_seeds.value < ceiling.of_the_mean < 1
    ids = open_dataset(shipped.training.data).ids
    means = shipped.losses.mean(1)  # [S, Q]
    for row in shipped.kinds["training images"]:
        there = shipped.subsets[:, ids.index(shipped.queries.ids[row])]
        assert means[there, row].mean() < means[~there, row].mean()


def test_it_survives_a_file(shipped: Shipped, tmp_path: Path) -> None:
    shipped.write(tmp_path / "again.npz")
    again = Shipped.read(tmp_path / "again.npz")
    assert again.training == shipped.training and again.queries.ids == shipped.queries.ids
    assert (again.losses == shipped.losses).all()
    (tmp_path / "again.npz").write_bytes(b"no archive")
    with pytest.raises(RetracError, match="damaged"):
        Shipped.read(tmp_path / "again.npz")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((3, 256)), "holds \\(3, 256\\), not \\(48, 256\\)"),
        (np.full((48, 256), np.nan), "finite"),
        (np.full((48, 256), "a"), "finite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    values: np.ndarray, told: str, shipped: Shipped, tmp_path: Path
) -> None:
    np.save(tmp_path / "own.npy", values)
    with pytest.raises(RetracError, match=told):
        read_scores(tmp_path / "own.npy", shipped)


def test_what_is_no_array_is_refused(shipped: Shipped, tmp_path: Path) -> None:
    (tmp_path / "own.npy").write_text("1 2 3")
    with pytest.raises(RetracError, match="cannot be read"):
        read_scores(tmp_path / "own.npy", shipped)
    np.save(tmp_path / "right.npy", np.ones((48, 256), np.float32))
    assert read_scores(tmp_path / "right.npy", shipped).shape == (48, 256)
