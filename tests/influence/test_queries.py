"""What `--queries` can name."""

import numpy as np
import pytest

from retrac.data.images import to_pil
from retrac.errors import RetracError
from retrac.influence.queries import open_queries
from retrac.training.loop import train
from retrac.training.run import Run
from tiny import tiny


def test_training_samples_evenly_spread_or_by_index(tiny_run: Run) -> None:
    dataset = tiny_run.dataset
    spread = open_queries(tiny_run, "train:3")
    assert len(spread) == 3
    assert spread.ids[0] == dataset.ids[0]
    given = open_queries(tiny_run, "train:5,2")
    assert given.ids == (dataset.ids[5], dataset.ids[2])
    np.testing.assert_array_equal(given.images[0], dataset.images[5])
    assert open_queries(tiny_run, "train:5,").ids == (dataset.ids[5],)


def test_generated_images_depend_on_their_seed(tiny_run: Run) -> None:
    two, three = open_queries(tiny_run, "generated:2"), open_queries(tiny_run, "generated:3")
    np.testing.assert_array_equal(two.images, three.images[:2])
    other = open_queries(tiny_run, "generated:2", seed=1)
    assert (other.images != two.images).any()
    assert other.labels == ("", "")


def test_images_are_generated_where_training_has_few_timesteps(tmp_path) -> None:
    run = train(tiny(epochs=1, timesteps=20, sample_count=0), tmp_path / "run")
    assert len(open_queries(run, "generated:1")) == 1


def test_a_folder_of_images(tiny_run: Run, tmp_path) -> None:
    for name in ("b.png", "a.png"):
        to_pil(tiny_run.dataset.images[3]).save(tmp_path / name)
    queries = open_queries(tiny_run, str(tmp_path))
    assert queries.ids == ("a.png", "b.png")
    np.testing.assert_array_equal(queries.images[0], tiny_run.dataset.images[3])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train:0", "at least one"),
        ("generated:0", "at least one"),
        ("train:100000", "has only"),
        ("train:100000,", "there is no sample 100000"),
        ("trian:3", "neither generated:N, trajectory:N, train:N"),
        ("no/such/folder", "neither generated:N, trajectory:N, train:N"),
    ],
)
def test_what_cannot_be_found_is_said(tiny_run: Run, text: str, complaint: str) -> None:
    with pytest.raises(RetracError, match=complaint):
        open_queries(tiny_run, text)
