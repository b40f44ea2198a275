"""Scores are the formulas' scores, however the work is split, and survive being interrupted."""

import dataclasses

import numpy as np
import pytest
import torch

import retrac
from retrac.attribution.asked import pixels
from retrac.attribution.attribution import part_of
from retrac.attribution.config import AttributeConfig, ComputeConfig, PlanConfig
from retrac.attribution.engine import Engine
from retrac.attribution.parts import Parts
from retrac.attribution.plan import Plan
from retrac.attribution.queries import training_samples
from retrac.attribution.scorer import Scorer
from retrac.diffusion.shown import Seen
from retrac.errors import RetracError
from retrac.training.run import Run
from tiny import PUBLISHED

from . import formulas

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)


@pytest.fixture(scope="module")
def all_visits(tiny_run: Run) -> retrac.Attribution:
    return retrac.attribute(tiny_run, "train:2", PUBLISHED, replay="all", plan=PLAN)


def test_in_double_precision_scores_are_the_formulas_to_all_digits(tiny_run: Run) -> None:
    exact = ComputeConfig(precision="float64")
    config = AttributeConfig(PUBLISHED, (2,), "all", plan=PLAN, compute=exact)
    queries = retrac.open_queries(tiny_run, "train:2")
    found = Engine.of(tiny_run, config).scores(queries, Parts(None, {})).score
    plan, checkpoint = Plan.of(PLAN, tiny_run.config.objective.timesteps), tiny_run.checkpoints[0]
    images = pixels(queries.images)
    for method, (values,) in zip(PUBLISHED, found, strict=True):
        expected = formulas.scores(tiny_run, checkpoint, range(2), images, plan, method)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["tracin", "retrac"])
def test_scores_are_those_of_the_plain_loop(
    tiny_run: Run, all_visits: retrac.Attribution, method: str
) -> None:
    queries = pixels(retrac.open_queries(tiny_run, "train:2").images)
    plan = Plan.of(PLAN, tiny_run.config.objective.timesteps)
    start = 0
    for index, checkpoint in enumerate(tiny_run.checkpoints):
        interval = range(start, checkpoint.epoch)
        expected = formulas.scores(tiny_run, checkpoint, interval, queries, plan, method)
        found = all_visits.contributions.sel({"method": method}).values[index]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        start = checkpoint.epoch


def test_the_last_epoch_stands_for_its_interval_with_the_interval_s_whole_weight(
    tiny_run: Run,
) -> None:
    last = retrac.attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN)
    checkpoint = tiny_run.checkpoints[-1]
    before = tiny_run.checkpoints[-2].epoch
    queries = pixels(retrac.open_queries(tiny_run, "train:1").images)
    plan = Plan.of(PLAN, tiny_run.config.objective.timesteps)
    only = range(checkpoint.epoch - 1, checkpoint.epoch)
    raw = formulas.scores(tiny_run, checkpoint, only, queries, plan, "tracin")
    sizes: dict[int, list[tuple[int, int]]] = {}
    for epoch in range(before, checkpoint.epoch):
        for batch in tiny_run.ledger.batches(epoch, tiny_run.config.batch_size):
            for sample in batch:
                sizes.setdefault(int(sample), []).append((epoch, len(batch)))
    for sample, visits in sizes.items():
        total = sum(_rate(tiny_run, epoch, sample) / size for epoch, size in visits)
        own = _rate(tiny_run, visits[-1][0], sample) / visits[-1][1]
        found = last.contributions.sel({"method": "tracin"}).values[-1, 0, sample]
        assert found == pytest.approx(raw[0, sample] * total / own, rel=1e-3, abs=1e-9)


def _rate(run: Run, epoch: int, sample: int) -> float:
    """The learning rate of the step that visited a sample."""
    rows = [step for step in run.steps if step.epoch == epoch]
    batches = run.ledger.batches(epoch, run.config.batch_size)
    (position,) = (i for i, batch in enumerate(batches) if sample in batch)
    return rows[position].learning_rate


def test_a_tracin_score_is_the_drop_in_loss_that_sgd_would_owe_to_the_sample(
    tiny_run: Run,
) -> None:
    checkpoint = tiny_run.checkpoints[-1]
    result = retrac.attribute(
        tiny_run, "train:1", PUBLISHED, checkpoints=[checkpoint.epoch], plan=PLAN
    )
    plan = Plan.of(PLAN, tiny_run.config.objective.timesteps).at(checkpoint.epoch)
    query = pixels(retrac.open_queries(tiny_run, "train:1").images)[0]
    model = checkpoint.load(tiny_run.shape).double()

    def loss() -> float:
        noises = plan.draw(query).double().flatten(0, 1)
        images = query.double().expand_as(noises)
        moments = plan.timesteps.repeat_interleave(plan.noises)
        with torch.no_grad():
            return float(tiny_run.objective.losses(model, Seen(images), moments, noises).mean())

    best = result.proponents(0, "tracin", 1)[0]
    weight = float(result.dataset["train_weight"].values[0, best.sample])
    inputs = retrac.training.inputs.training_inputs(
        tiny_run.dataset,
        tiny_run.ledger,
        checkpoint.epoch - 1,
        np.array([best.sample]),
        tiny_run.config.flip,
    )
    step = formulas.gradient(
        tiny_run, model, inputs.seen.clean[0].double(), int(inputs[1]), inputs[2][0].double()
    )
    small = 1e-4 / float(step.norm())
    before = loss()
    with torch.no_grad():
        for parameter, change in zip(
            model.parameters(),
            step.split([p.numel() for p in model.parameters()]),
            strict=True,
        ):
            parameter -= small * change.view_as(parameter)
    assert (before - loss()) / small * weight == pytest.approx(best.score, rel=1e-2)


def test_scores_do_not_depend_on_how_memory_splits_the_work(
    tiny_run: Run, all_visits: retrac.Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrac.attribution.sample_scores.CHUNK", 7)
    monkeypatch.setattr("retrac.attribution.memory.TEMPORARY_BYTES", 2**18)
    monkeypatch.setattr("retrac.attribution.memory.MOST_ROWS", 3)
    small = retrac.attribute(
        tiny_run,
        "train:2",
        PUBLISHED,
        replay="all",
        plan=PLAN,
        compute=ComputeConfig(memory_budget="3MB"),
    )
    scale = float(np.abs(all_visits.contributions).max())
    np.testing.assert_allclose(
        small.contributions, all_visits.contributions, rtol=0, atol=1e-5 * scale
    )


def test_a_query_s_scores_do_not_depend_on_the_queries_beside_it(
    tiny_run: Run, all_visits: retrac.Attribution
) -> None:
    second = [int(np.linspace(0, len(tiny_run.dataset), 2, endpoint=False)[1])]
    alone = retrac.attribute(
        tiny_run, training_samples(tiny_run, "one", second), PUBLISHED, replay="all", plan=PLAN
    )
    np.testing.assert_allclose(
        alone.scores.values[:, 0], all_visits.scores.values[:, 1], rtol=1e-4, atol=1e-9
    )


def test_one_method_alone_gives_what_it_gives_beside_the_other(
    tiny_run: Run, all_visits: retrac.Attribution
) -> None:
    alone = retrac.attribute(tiny_run, "train:2", ["retrac"], replay="all", plan=PLAN)
    assert alone.methods == ("retrac",)
    np.testing.assert_allclose(
        alone.scores_of("retrac"), all_visits.scores_of("retrac"), rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize("after", [0, 1, 3])
def test_interrupted_work_goes_on_to_the_same_result(
    tiny_run: Run,
    all_visits: retrac.Attribution,
    after: int,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("retrac.attribution.sample_scores.CHUNK", 32)
    whole = retrac.attribute(tiny_run, "train:2", PUBLISHED, replay="all", plan=PLAN)
    put, calls = Parts.put, []

    def fail_later(self: Parts, name: str, arrays: dict[str, np.ndarray]) -> None:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(name)
        put(self, name, arrays)

    monkeypatch.setattr(Parts, "put", fail_later)
    with pytest.raises(KeyboardInterrupt):
        retrac.attribute(
            tiny_run, "train:2", PUBLISHED, replay="all", plan=PLAN, output=tmp_path / "a"
        )
    assert not (tmp_path / "a").exists()

    monkeypatch.setattr(Parts, "put", put)
    done = set(calls)
    recomputed = []
    monkeypatch.setattr(
        Parts, "put", lambda self, name, arrays: (recomputed.append(name), put(self, name, arrays))
    )
    resumed = retrac.attribute(
        tiny_run, "train:2", PUBLISHED, replay="all", plan=PLAN, output=tmp_path / "a"
    )
    np.testing.assert_array_equal(resumed.contributions, whole.contributions)
    assert not {name for name in done if "samples" in name} & set(recomputed)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_work_that_was_begun_with_little_memory_goes_on_in_the_same_pieces(
    tiny_run: Run, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, done, split = Parts.put, [], Scorer.split

    def fail_at_last(self: Parts, name: str, arrays: dict[str, np.ndarray]) -> None:
        if len(done) == 11:
            raise KeyboardInterrupt
        done.append(name)
        put(self, name, arrays)

    with monkeypatch.context() as patched:
        patched.setattr(
            Scorer, "split", lambda *given: dataclasses.replace(split(*given), queries=1)
        )
        patched.setattr(Parts, "put", fail_at_last)
        with pytest.raises(KeyboardInterrupt):
            retrac.attribute(tiny_run, "train:2", PUBLISHED, plan=PLAN, output=tmp_path / "a")
    assert len({name for name in done if "samples" in name}) == 5  # 3 checkpoints, 2 blocks

    again: list[str] = []
    monkeypatch.setattr(
        Parts, "put", lambda self, name, arrays: (again.append(name), put(self, name, arrays))
    )
    retrac.attribute(tiny_run, "train:2", PUBLISHED, plan=PLAN, output=tmp_path / "a")
    assert [name for name in again if "samples" in name] == [
        "epoch-0006-queries-00001-00001-samples-0000000"
    ]


def test_a_finished_result_is_opened_and_one_of_other_settings_refused(
    tiny_run: Run, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retrac.attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN, output=tmp_path / "a")
    with monkeypatch.context() as patched:
        patched.setattr("retrac.attribution.scorer.query_gradients", None)  # nothing is computed
        again = retrac.attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN, output=tmp_path / "a")
    np.testing.assert_array_equal(first.scores, again.scores)
    with pytest.raises(RetracError, match=r"plan_noises was 2, now 3.*choose another --output"):
        retrac.attribute(
            tiny_run, "train:1", PUBLISHED, plan=PlanConfig(3, 3), output=tmp_path / "a"
        )


def test_interrupted_work_of_other_settings_is_not_mixed_in(tmp_path) -> None:
    Parts(tmp_path / "p", {"plan": 1}).put("x", {"a": np.ones(2)})
    assert "x" in Parts(tmp_path / "p", {"plan": 1})
    with pytest.raises(RetracError, match="other settings"):
        Parts(tmp_path / "p", {"plan": 2})


def test_unknown_methods_and_checkpoints_are_named(tiny_run: Run) -> None:
    with pytest.raises(RetracError, match="unknown method 'retrak': did you mean 'retrac'"):
        retrac.attribute(tiny_run, "train:1", ["retrak"])
    with pytest.raises(RetracError, match="no checkpoint after epoch 999"):
        retrac.attribute(tiny_run, "train:1", PUBLISHED, checkpoints=[999])
    with pytest.raises(RetracError, match=r"memory budget of 1MB is too small.*at least"):
        retrac.attribute(tiny_run, "train:1", PUBLISHED, compute=ComputeConfig(memory_budget="1MB"))


def test_chosen_parameters_alone_count_in_products_and_norms(tiny_run: Run) -> None:
    chosen = "mid_block"
    found = retrac.attribute(tiny_run, "train:1", PUBLISHED, parameters=chosen, plan=PLAN)
    whole = retrac.attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN)
    rest = retrac.attribute(
        tiny_run, "train:1", PUBLISHED, parameters=f"^(?!.*{chosen})", plan=PLAN
    )
    # Products add up over parameters, and so do squared norms.
    np.testing.assert_allclose(
        found.scores_of("tracin") + rest.scores_of("tracin"),
        whole.scores_of("tracin"),
        rtol=1e-3,
        atol=1e-4 * float(np.abs(whole.scores_of("tracin")).max()),
    )
    np.testing.assert_allclose(
        found.dataset["train_norm"] ** 2 + rest.dataset["train_norm"] ** 2,
        whole.dataset["train_norm"] ** 2,
        rtol=1e-4,
    )


def test_a_choice_of_no_parameters_is_refused(tiny_run: Run) -> None:
    with pytest.raises(RetracError, match="no parameter has such a name"):
        retrac.attribute(tiny_run, "train:1", PUBLISHED, parameters="transformer")
    with pytest.raises(RetracError, match="not a regular expression"):
        retrac.attribute(tiny_run, "train:1", PUBLISHED, parameters="(")


def test_a_refused_attempt_leaves_nothing_in_the_way_of_the_next(tiny_run: Run, tmp_path) -> None:
    with pytest.raises(RetracError, match="no parameter has such a name"):
        retrac.attribute(
            tiny_run, "train:1", PUBLISHED, parameters="x{9}", plan=PLAN, output=tmp_path / "a"
        )
    retrac.attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN, output=tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_training_further_leaves_the_attribution_of_earlier_checkpoints_valid(
    own_run, tmp_path
) -> None:
    run = Run.open(own_run)
    first = retrac.attribute(
        run, "train:1", PUBLISHED, checkpoints=[2, 4], plan=PLAN, output=tmp_path / "a"
    )
    longer = retrac.train(dataclasses.replace(run.config, epochs=8), own_run)
    again = retrac.attribute(
        longer, "train:1", PUBLISHED, checkpoints=[2, 4], plan=PLAN, output=tmp_path / "a"
    )
    np.testing.assert_array_equal(first.scores, again.scores)


def test_groups_of_one_checkpoint_s_visits_add_up_to_its_scores(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrac.attribution.sample_scores.CHUNK", 7)
    alone = {"checkpoints": [6], "plan": PLAN}
    found = retrac.attribute(tiny_run, "train:2", PUBLISHED, replay="all", **alone)
    for method in PUBLISHED:
        assert found.parts(method).shape == (6, 2, 24)
        np.testing.assert_allclose(found.parts(method).sum(0), found.scores_of(method), atol=1e-6)
    assert (found.dataset["error"] > 0).all()
    # Each group is one epoch here, with a sixth of what it would count if it stood for all.
    last = retrac.attribute(tiny_run, "train:2", PUBLISHED, **alone)
    weights = Scorer.of(tiny_run, AttributeConfig(checkpoints=(6,), replay="all")).replays[0]
    share = weights.weights[-1] / weights.total
    for method in PUBLISHED:
        np.testing.assert_allclose(
            found.parts(method)[-1], last.scores_of(method) * share, rtol=1e-4, atol=1e-8
        )
        assert part_of(method) not in last.dataset
    assert "error" not in last.dataset and last.sure == ()
    with pytest.raises(RetracError, match="--replay 2 or more"):
        last.uncertainty("retrac")


def test_groups_are_few_however_many_visits(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrac.attribution.scorer.GROUPS", 4)
    found = retrac.attribute(
        tiny_run, "train:1", PUBLISHED, replay="all", checkpoints=[6], plan=PLAN
    )
    for method in PUBLISHED:
        assert found.groups(method) == 4
        np.testing.assert_allclose(found.parts(method).sum(0), found.scores_of(method), atol=1e-6)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "unusual", [{"compute": ComputeConfig(precision="bfloat16")}, {"replay_back": 1}]
)
def test_what_is_told_only_where_it_is_unusual_tells_results_apart(
    tiny_run: Run, tmp_path, unusual, first: bool
) -> None:
    ways = ({}, unusual) if first else (unusual, {})
    retrac.attribute(tiny_run, "train:1", PUBLISHED, plan=PLAN, output=tmp_path / "out", **ways[0])
    with pytest.raises(RetracError, match="other settings"):
        retrac.attribute(
            tiny_run, "train:1", PUBLISHED, plan=PLAN, output=tmp_path / "out", **ways[1]
        )
