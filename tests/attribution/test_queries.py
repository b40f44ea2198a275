"""What `--queries` can name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from retrac.attribution.attribute import attribute
from retrac.attribution.config import PlanConfig, QueryConfig
from retrac.attribution.plan import Plan
from retrac.attribution.queries import generation_steps, open_queries, stand_in
from retrac.data.images import to_pil
from retrac.errors import RetracError
from retrac.training.loop import train
from retrac.training.run import Run
from tiny import PUBLISHED, tiny

from . import formulas


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


def test_a_trajectory_is_what_the_sampler_pointed_to(tiny_run: Run) -> None:
    """At each timestep of the plan, the step nearest to it, redone here by hand."""
    queries = open_queries(tiny_run, "trajectory:2", 4)
    assert queries.ids == ("trajectory/seed-4/0000", "trajectory/seed-4/0001")
    assert (queries.images == open_queries(tiny_run, "generated:2", 4).images).all()
    plan = Plan.of(PlanConfig(5, 2), tiny_run.timesteps)
    asked = queries.asked(tiny_run, plan)
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([4, 1])))
    noisy = torch.from_numpy(stream.standard_normal((1, *tiny_run.shape), dtype=np.float32))
    model = tiny_run.checkpoints[-1].load_averaged(tiny_run.shape)
    sampler = DDIMScheduler.from_config(
        tiny_run.making.scheduler.config, timestep_spacing="trailing"
    )
    sampler.set_timesteps(generation_steps(tiny_run))
    clean = {}
    with torch.no_grad():
        for t in sampler.timesteps:
            step = sampler.step(model(noisy, t).sample, t, noisy)
            clean[int(t)], noisy = step.pred_original_sample[0], step.prev_sample
    for place, t in enumerate(plan.timesteps.tolist()):
        nearest = min(clean, key=lambda at: abs(at - t))
        torch.testing.assert_close(asked.at(slice(place, place + 1), 1).clean[1], clean[nearest])
    with pytest.raises(RetracError, match="stands alone"):
        open_queries(tiny_run, "train:2+trajectory:2")


def test_scores_of_a_trajectory_are_those_of_the_plain_loop(tiny_run: Run) -> None:
    queries = open_queries(tiny_run, "trajectory:1")
    plan, last = PlanConfig(4, 2), tiny_run.checkpoints[-1]
    found = attribute(tiny_run, queries, PUBLISHED, checkpoints=[last.epoch], plan=plan)
    own = Plan.of(plan, tiny_run.timesteps).at(last.epoch)
    model = last.load(tiny_run.shape)
    asked = queries.asked(tiny_run, own)
    assert asked.path is not None
    means = []
    for place, t in enumerate(own.timesteps):
        noises = own.draw(asked.pixels[0])[place]
        rows = [
            formulas.gradient(tiny_run, model, asked.path[0, place], int(t), noise)
            for noise in noises
        ]
        means.append(torch.stack(rows).mean(0).norm())
    np.testing.assert_allclose(found.dataset["query_norm"].values[0, 0], means, rtol=1e-4)


def test_only_the_region_of_a_mask_counts(tiny_run: Run, tmp_path: Path) -> None:
    height, width = tiny_run.shape[1:]
    mask = np.zeros((1, height, width), np.uint8)
    mask[:, 2:5, 1:7] = 255
    to_pil(mask).save(tmp_path / "mask.png")
    queries = open_queries(tiny_run, QueryConfig("train:2", query_mask=tmp_path / "mask.png"))
    plan = Plan.of(PlanConfig(3, 2), tiny_run.timesteps)
    asked = queries.asked(tiny_run, plan)
    model, objective = tiny_run.checkpoints[-1].load(tiny_run.shape), tiny_run.objective
    timesteps, noise = torch.tensor([3, 30]), torch.randn(2, *tiny_run.shape)
    with torch.no_grad():
        losses = objective.losses(model, asked.seen, timesteps, noise)
        noisy = objective.process.noised(asked.seen.clean, noise, timesteps)
        wrong = objective.distance(model(noisy, timesteps).sample, noise)
    torch.testing.assert_close(losses, wrong[:, :, 2:5, 1:7].mean((1, 2, 3)))
    result = attribute(tiny_run, queries, PUBLISHED, plan=PlanConfig(3, 2))
    assert result.dataset["query_mask"].values[0].sum() == 18
    assert not np.allclose(
        result.scores.values,
        attribute(tiny_run, "train:2", PUBLISHED, plan=PlanConfig(3, 2)).scores.values,
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"query_labels": ("a",)}, "is told nothing of an image"),
        ({"query_guidance": 2.0}, "a guidance of 2 needs a network"),
        ({"query_mask": Path("/nowhere.png")}, "does not exist"),
        ({"queries": "train:2", "query_labels": ("a",)}, "samples have their own"),
    ],
)
def test_what_does_not_fit_a_network_that_is_told_nothing(
    tiny_run: Run, changes: Any, told: str
) -> None:
    with pytest.raises(RetracError, match=told):
        open_queries(tiny_run, QueryConfig(**{"queries": "generated:2", **changes}))


@pytest.mark.parametrize(("count", "white"), [(3, 255), (1, 0)])
def test_masks_that_are_too_many_or_empty(
    tiny_run: Run, tmp_path: Path, count: int, white: int
) -> None:
    for number in range(count):
        to_pil(np.full(tiny_run.shape, white, np.uint8)).save(tmp_path / f"{number}.png")
    with pytest.raises(RetracError, match=r"one for each of 2 queries|nothing is white"):
        open_queries(tiny_run, QueryConfig("train:2", query_mask=tmp_path))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"query_mask": Path("/nowhere.png")}, "does not exist"),
        ({"query_labels": ("a",)}, "is told nothing of an image"),
    ],
)
def test_what_will_be_refused_is_refused_before_anything_is_generated(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch, changes: Any, told: str
) -> None:
    monkeypatch.setattr("retrac.attribution.queries.sample", None)
    with pytest.raises(RetracError, match=told):
        stand_in(tiny_run, QueryConfig("generated:2", **changes))
    assert len(stand_in(tiny_run, QueryConfig("generated:2"))) == 2


def test_masks_are_counted_before_anything_is_generated(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrac.attribution.queries.sample", None)
    for number in range(2):
        to_pil(np.full(tiny_run.shape, 255, np.uint8)).save(tmp_path / f"{number}.png")
    for queries in ("generated:3", "train:1+generated:2"):
        with pytest.raises(RetracError, match="one for each of 3 queries, not 2"):
            stand_in(tiny_run, QueryConfig(queries, query_mask=tmp_path))
    assert len(stand_in(tiny_run, QueryConfig("train:1+generated:1", query_mask=tmp_path))) == 2


def test_queries_are_generated_on_the_asked_device(tiny_run: Run) -> None:
    assert len(open_queries(tiny_run, "generated:1", device="cpu")) == 1
    if not torch.cuda.is_available():
        with pytest.raises(RetracError, match="no cuda device"):
            open_queries(tiny_run, "generated:1", device="cuda")


def test_folders_are_named_by_what_is_asked() -> None:
    words = QueryConfig("generated:1", 0, ("A cat!",), 7.5, Path("x/eye.png")).words
    assert words == ("a-cat-a9cf", "guidance-7.5", "mask-eye")
    long, other = ("a" * 40,), ("a" * 41,)
    assert QueryConfig("generated:1", 0, long).words != QueryConfig("generated:1", 0, other).words
    assert QueryConfig("train:1").words == ()
