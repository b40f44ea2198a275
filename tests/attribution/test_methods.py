"""Every method of features is the dense algebra that it claims to be, however the work is cut."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

import retrac
from families import latent_pipeline
from retrac.attribution import methods as module
from retrac.attribution import sample_features
from retrac.attribution.attribution import Attribution
from retrac.attribution.build_index import build_index
from retrac.attribution.config import (
    AttributeConfig,
    ComputeConfig,
    FeatureConfig,
    IndexConfig,
    PlanConfig,
)
from retrac.attribution.engine import Engine
from retrac.attribution.features import variants
from retrac.attribution.methods import (
    DEFAULT,
    Draws,
    Method,
    by_events,
    by_feature,
    method_named,
    methods,
)
from retrac.attribution.metrics import DampedKernel, Freedom, Identity, UnitNorm
from retrac.attribution.parameter_metrics import SecondMoment
from retrac.attribution.parts import Parts
from retrac.attribution.queries import open_queries, training_samples
from retrac.data.config import DatasetConfig
from retrac.diffusion.loss import Objective
from retrac.diffusion.measurements import output_mean
from retrac.errors import RetracError
from retrac.files import read_json
from retrac.gradients.weights import inverse_norm
from retrac.training.adopted import adopt
from retrac.training.config import AdoptConfig
from retrac.training.own import adopt_module
from retrac.training.run import Run
from text_pipelines import TOKENS, text_pipeline
from tiny import PUBLISHED
from training.test_own import given

from . import dense

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)
ALGEBRA = {
    "kernel-retrac": dense.kernel_retrac,
    "trak": dense.trak,
    "d-trak": dense.d_trak,
    "cosine": dense.cosine,
}
FEATURES = tuple(ALGEBRA)
WHOLE = FeatureConfig(draws="small", layer_numbers=0)
FEW = FeatureConfig(draws="small", layer_numbers=16)
EXACT = ComputeConfig(precision="float64")
LATE = "^(up_blocks.*(conv|time_emb)|conv_norm_out|conv_out)"
"""Layers whose gradients take half a backward pass. The first is no group norm, of which torch's
backward pass breaks where what it normalises needs no gradient."""


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> Iterator[None]:
    """Two timesteps, four noises at each; visits in three bins, met by two and two in each."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(retrac.attribution.config.GRIDS, "small", (2, 4))
        patched.setattr("retrac.attribution.feature_plan.BIN_GRID", (2, 4))
        yield


def scored(run: Run, chosen: tuple[str, ...] = FEATURES, **changes: Any) -> Attribution:
    queries = changes.pop("queries", "train:2")
    options = {"features": FEW, "plan": PLAN, "checkpoints": [6], "parameters": LATE, **changes}
    return retrac.attribute(run, queries, chosen, **options)


@pytest.fixture(scope="module")
def few(tiny_run: Run) -> Attribution:
    """All methods of features, sketched."""
    return scored(tiny_run)


def assert_close(found: Any, expected: Any, within: float = 1e-6) -> None:
    """By the largest number; results are stored in float32."""
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=within * scale)


def by_algebra(run: Run, names: tuple[str, ...], features: FeatureConfig) -> dict[str, np.ndarray]:
    """By method, dense scores with all parts of the draws and without each, `[1 + G, Q, N]`."""
    config = AttributeConfig(names, (6,), parameters=LATE, compute=EXACT, features=features)
    queries, found = training_samples(run, "", [0, 12]), {}
    for plan in Engine.of(run, config).plans:
        model = plan.scorer.model(plan.scorer.replays[-1])
        layers = dense.layers_of(model)
        bins = list(dense.by_bin(plan, model, queries, np.arange(run.size)))
        for method in plan.methods:
            score = ALGEBRA[method.name]
            by_part = [
                sum(score(one.mean(part), two.mean(part), layers) for one, two in bins) / len(bins)
                for part in variants(plan.source.parts)
            ]
            found[method.name] = torch.stack(by_part).numpy()
    return found


def in_pieces(run: Run, names: tuple[str, ...], features: FeatureConfig) -> dict[str, np.ndarray]:
    """The same as the engine has it before results are rounded to float32."""
    config = AttributeConfig(names, (6,), parameters=LATE, compute=EXACT, features=features)
    found: dict[str, np.ndarray] = {}
    for work in Engine.of(run, config).works(training_samples(run, "", [0, 12])):
        parts = Parts(None, {})
        work.do(parts)
        found |= zip((method.name for method in work.methods), work.assemble(parts), strict=True)
    return found


def test_what_methods_say_of_their_foresight_is_what_was_measured() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "leaderboard.json"
    board = read_json(results)
    measured = {row["method"]: row["all"]["value"] for row in board["table"]}
    for name, told in module.LDS.items():
        title = methods()[name].title
        row = title if title in measured else f"{title}, 1 event a checkpoint"
        assert round(measured[row], 2) == told, name
    assert round(measured["pixels"], 2) == module.LDS_PIXELS
    assert round(board["ceiling"]["of_the_mean"], 2) == module.LDS_BOUND
    # Windows answer for one very run, which models of other seeds are not.
    others = [each for each in module._RECORDS if each.draws is not Draws.WINDOW]
    assert {*module.LDS} == {each.name for each in others}


def test_every_method_of_features_is_held_against_algebra() -> None:
    by_feature = (Draws.TIMESTEPS, Draws.AVERAGE)
    assert {each.name for each in module._RECORDS if each.draws in by_feature} == {*ALGEBRA}


@pytest.mark.parametrize(
    ("names", "features"),
    [(FEATURES, WHOLE), (("kernel-retrac",), FeatureConfig("visits", False, 0))],
    ids=["grid", "visits"],
)
def test_scores_are_those_of_dense_algebra(
    tiny_run: Run, names: tuple[str, ...], features: FeatureConfig
) -> None:
    found = scored(tiny_run, names, features=features, compute=EXACT)
    unrounded = in_pieces(tiny_run, names, features)
    for name, (whole, *without) in by_algebra(tiny_run, names, features).items():
        assert_close(found.scores_of(name), whole)
        np.testing.assert_allclose(
            unrounded[name], [whole, *without], rtol=0, atol=1e-8 * np.abs(whole).max()
        )
        parts = [whole / 2 + (np.mean(without, 0) - each) / 2 for each in without]  # a jackknife
        assert_close(found.parts(name), parts)
        assert np.abs(parts[0] - parts[1]).max() > 1e-3 * np.abs(whole).max()


def test_single_precision_is_close(tiny_run: Run) -> None:
    single, double = (
        scored(tiny_run, ("kernel-retrac",), features=WHOLE, compute=compute)
        for compute in (ComputeConfig(), EXACT)
    )
    assert_close(single.scores, double.scores, 1e-4)


def test_layers_in_several_lots_give_the_same(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scored(tiny_run, ("kernel-retrac",), features=WHOLE)
    monkeypatch.setattr("retrac.attribution.feature_plan.budget_of", lambda *_: 2**20)
    config = AttributeConfig(("kernel-retrac",), (6,), parameters=LATE, features=WHOLE)
    (work,) = Engine.of(tiny_run, config).works(open_queries(tiny_run, "train:2"))
    assert len(work.lots) > 2
    lots = scored(tiny_run, ("kernel-retrac",), features=WHOLE)
    assert_close(lots.scores, whole.scores, 1e-5)
    with pytest.raises(RetracError, match=r"do not fit into memory for trak: give --layer-numbers"):
        scored(tiny_run, ("trak",), features=WHOLE)


def test_results_do_not_depend_on_how_memory_splits_the_work(
    tiny_run: Run, few: Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_features, "CHUNK", 7)
    for name, rows in (("kernel-retrac", 11), ("d-trak", 3)):
        monkeypatch.setattr("retrac.attribution.memory.MOST_ROWS", rows)
        assert_close(scored(tiny_run, (name,)).parts(name), few.parts(name), 1e-4)


def test_a_method_s_scores_do_not_depend_on_methods_and_queries_beside_it(
    tiny_run: Run, few: Attribution
) -> None:
    second = training_samples(tiny_run, "", [12])
    for name in ("kernel-retrac", "trak"):
        alone = scored(tiny_run, (name, "tracin"), queries=second)
        assert alone.methods == (name, "tracin")
        assert_close(alone.scores_of(name)[0], few.scores_of(name)[1], 1e-5)


def test_interrupted_work_goes_on_to_the_same_result(
    tiny_run: Run, few: Attribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_features, "CHUNK", 10)
    put, done = Parts.put, []

    def stopping(self: Parts, name: str, arrays: dict[str, np.ndarray]) -> None:
        if len(done) == 6:  # two of three chunks of the second bin are there
            raise KeyboardInterrupt
        done.append(name)
        put(self, name, arrays)

    monkeypatch.setattr(Parts, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        scored(tiny_run, output=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    again: list[str] = []
    monkeypatch.setattr(
        Parts, "put", lambda self, name, arrays: (again.append(name), put(self, name, arrays))
    )
    resumed = scored(tiny_run, output=tmp_path / "a")
    assert_close(resumed.scores, few.scores, 1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert again[0].endswith("samples-0000020") and not set(done) & set(again)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images in every forward pass."""
    sizes: list[int] = []
    measure = Objective.measure

    def counted(self: Objective, model: Any, seen: Any, *rest: Any) -> Any:
        sizes.append(seen.size)
        return measure(self, model, seen, *rest)

    monkeypatch.setattr(Objective, "measure", counted)
    return sizes


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install packages that provide something as a method."""

    def installed(*provided: Any) -> None:
        points = [
            SimpleNamespace(
                name=f"name-{number}", value="package:thing", load=lambda each=each: each
            )
            for number, each in enumerate(provided)
        ]
        monkeypatch.setattr(module, "entry_points", lambda group: points)
        methods.cache_clear()

    yield installed
    methods.cache_clear()


def another(**changes: Any) -> Method:
    about = {"title": "Another", "about": "", "estimand": "", "source": ""}
    return Method(**{"name": "another", **about, **changes})


def test_methods_that_share_a_feature_share_the_pass(
    tiny_run: Run, passes: list[int], install: Callable[..., None]
) -> None:
    kernel = method_named("kernel-retrac")
    install(dataclasses.replace(kernel, name="plain", metric=Identity()))
    for one, both in (("retrac", PUBLISHED), ("kernel-retrac", ("kernel-retrac", "plain"))):
        scored(tiny_run, (one,))
        alone = list(passes)
        passes.clear()
        result = scored(tiny_run, both)
        assert passes == alone
        assert result.methods == both and result.scores.any("sample").all()
        passes.clear()
    draws = [size for size in alone if size > 2]  # others look at shapes
    assert sum(draws) == (24 + 2) * 2 * 4  # all measurements come from one pass


def test_a_method_of_another_package_is_scored_like_any_other(
    tiny_run: Run, install: Callable[..., None]
) -> None:
    def leverage_free(norms: torch.Tensor) -> torch.Tensor:
        return norms.new_ones(norms.shape) * 2

    install(another(weight=leverage_free), another(name="mean", measurements=(output_mean,),
                                                   draws=Draws.AVERAGE))  # fmt: skip
    assert "another" in [method.name for method in by_events()]
    found = scored(tiny_run, ("tracin", "another", "mean"))
    assert_close(found.scores_of("another"), 4 * found.scores_of("tracin"), 1e-5)
    assert found.scores_of("mean").any()


@pytest.mark.parametrize(
    "change",
    [
        {"metric": DampedKernel(0.2)},
        {"metric": UnitNorm()},
        {"measurements": (output_mean,)},
        {"unit_samples": True},
        {"draws": Draws.TIMESTEPS},
    ],
)
def test_a_method_that_is_changed_has_other_results(
    change: dict[str, Any], tiny_run: Run, install: Callable[..., None]
) -> None:
    """Whatever decides scores is told, so that nobody is given those of an earlier record."""

    def settings(method: Method) -> dict[str, Any]:
        install(method)
        return Engine.of(tiny_run, AttributeConfig(("another",), features=FEW)).settings

    first = another(metric=DampedKernel(0.1), draws=Draws.AVERAGE)
    told = settings(first)
    assert settings(dataclasses.replace(first, title="Other words")) == told
    assert settings(dataclasses.replace(first, **change)) != told


def test_other_grids_and_weights_are_told(
    tiny_run: Run, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = AttributeConfig(("kernel-retrac",), features=FEW)
    told = Engine.of(tiny_run, few).settings
    monkeypatch.setitem(retrac.attribution.config.GRIDS, "small", (4, 2))
    assert Engine.of(tiny_run, few).settings != told
    install(another())
    plain = Engine.of(tiny_run, AttributeConfig(("another",))).settings
    install(another(weight=inverse_norm))
    assert Engine.of(tiny_run, AttributeConfig(("another",))).settings != plain


def test_what_is_no_method_is_refused(install: Callable[..., None]) -> None:
    install(another(name="fine"), "kernel")
    with pytest.raises(RetracError, match=r"'package:thing' must name a retrac\.Method"):
        methods()
    install(another(name="retrac"))
    with pytest.raises(RetracError, match="two methods are called 'retrac': uninstall 'package"):
        methods()


def test_a_package_that_breaks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("no module named magic")

    point = SimpleNamespace(name="broken", value="their.package:thing", load=load)
    monkeypatch.setattr(module, "entry_points", lambda group: [point])
    methods.cache_clear()
    with pytest.raises(
        RetracError, match=r"'broken' .* cannot be loaded .*magic.* 'their\.package'"
    ):
        methods()
    monkeypatch.undo()
    assert list(methods()) == [method.name for method in module._RECORDS]


def test_choices_that_do_not_go_together_are_refused() -> None:
    features = {"metric": UnitNorm()}, {"measurements": (output_mean,)}, {"unit_samples": True}
    for wrong in features:
        for draws in (Draws.INTERVALS, Draws.LAST):
            with pytest.raises(
                ValueError, match="another: a metric of features, unit samples, and outputs, need"
            ):
                another(draws=draws, **wrong)
    for wrong in ({"parameter_metric": SecondMoment()}, {"weight": inverse_norm}):
        for draws in (Draws.TIMESTEPS, Draws.AVERAGE):
            with pytest.raises(
                ValueError, match="another: a metric of parameters, and weights, need"
            ):
                another(draws=draws, **wrong)


def test_records_are_whole() -> None:
    assert DEFAULT == ("kernel-retrac", "retrac", "tracin")
    for name, method in methods().items():
        assert method.name == name == name.lower() and method.title
        assert method.formula
        assert all(text.endswith(".") for text in (method.about, method.estimand)) and method.source
    assert [method.name for method in by_events()] == ["retrac", "tracin"]
    groups = by_feature(list(methods().values()))
    assert [[method.name for method in group] for group in groups.values()] == [
        ["kernel-retrac"], ["retrac", "tracin", "adam"], ["trak", "cosine"], ["d-trak"], ["ekfac"],
        ["unrolled"],
    ]  # fmt: skip
    with pytest.raises(RetracError, match="unknown method 'dtrak': did you mean 'd-trak'"):
        method_named("dtrak")


def test_a_copy_of_a_sample_finds_its_original_first(tiny_run: Run) -> None:
    """Though it has noises of its own."""
    chosen = [3, 12, 20]
    queries = training_samples(tiny_run, "copies", chosen)
    result = scored(
        tiny_run,
        ("kernel-retrac",),
        queries=queries,
        features=FeatureConfig("medium", False, 64),
    )
    assert [result.proponents(row)[0].sample for row in range(3)] == chosen


def test_more_numbers_come_nearer_to_whole_layers(tiny_run: Run) -> None:
    assert_nearer(tiny_run)


@pytest.mark.parametrize("family", ["latent", "told texts"])
def test_more_numbers_come_nearer_in_other_families(family: str, tmp_path: Path) -> None:
    data = DatasetConfig(dataset="digits", resolution=16, limit=12)
    told = family == "told texts"
    model = tmp_path / "model"
    path = text_pipeline(model, "Stable Diffusion") if told else latent_pipeline(model)
    about = {"caption": "a {label}", "text_tokens": TOKENS} if told else {}
    run = adopt(AdoptConfig(path, data, events=2, **about), tmp_path / "run")
    assert_nearer(run)


def assert_nearer(run: Run) -> None:
    coarse, fine, whole = (
        scored(
            run,
            ("kernel-retrac",),
            checkpoints=(),
            parameters="trained",
            features=FeatureConfig("small", False, numbers),
        ).scores.values.ravel()
        for numbers in (2, 128, 0)
    )
    one, two = (spearmanr(each, whole).statistic for each in (coarse, fine))
    assert one < two and two > 0.8


def test_draws_are_visits_where_there_are_enough_and_else_a_grid(tiny_run: Run) -> None:
    def drawn(name: str, **features: Any) -> list[str]:
        config = AttributeConfig((name,), features=FeatureConfig(**features))
        return [plan.settings["draws"] for plan in Engine.of(tiny_run, config).plans]

    assert drawn("kernel-retrac") == ["medium"]  # six events are too few
    assert drawn("kernel-retrac", draws="visits") == ["visits"]
    assert drawn("trak", draws="visits") == ["medium"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("retrac.attribution.feature_plan.FEWEST", 6)
        assert drawn("kernel-retrac") == ["visits"] and drawn("trak") == ["medium"]


def test_a_run_that_gives_losses_alone_is_compared_by_them(tmp_path: Path) -> None:
    run = adopt_module(tmp_path / "run", **given(tmp_path, events=3))
    options = {"checkpoints": (), "parameters": "trained"}
    found = scored(run, ("kernel-retrac",), **options)
    (feature,) = found.config["features"]
    assert feature["measurements"] == ["loss"] and found.scores.any()
    with pytest.raises(
        RetracError, match=r"d-trak compares outputs .* gives losses alone: leave it"
    ):
        scored(run, ("kernel-retrac", "d-trak"), **options)
    with pytest.raises(RetracError, match=r"knows no events of its training, .*--draws visits"):
        scored(run, ("kernel-retrac",), features=FeatureConfig(draws="visits"), **options)


def test_losses_alone_are_compared_if_that_is_the_option(tiny_run: Run) -> None:
    features = dataclasses.replace(FEW, outputs=False)
    plans = Engine.of(
        tiny_run, AttributeConfig(("kernel-retrac", "d-trak"), features=features)
    ).plans
    measured = [plan.settings["measurements"] for plan in plans]
    assert measured == [["loss"], ["output_square"]]


def test_a_gradient_that_is_not_finite_names_query_and_checkpoint(own_run: Path) -> None:
    path = own_run / "checkpoints/epoch-0006/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.bias"][:] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(RetracError, match=r"query 'digits/0000' at epoch-0006 is not finite"):
        scored(Run.open(own_run), ("kernel-retrac",))


def test_an_index_has_nothing_for_methods_that_change_directions(own_run: Path) -> None:
    run = Run.open(own_run)
    build_index(run, IndexConfig(("tracin",), (6,), sketch_size=64))
    with pytest.raises(RetracError, match="does not hold what 'adam' needs"):
        retrac.attribute(run, "train:2", ("adam",), index=True)


def test_a_package_that_is_installed_later_leaves_an_index_alone(
    own_run: Path, install: Callable[..., None]
) -> None:
    """It has a measurement of its own, of which the index knows nothing."""

    def brightness(predicted: Any) -> torch.Tensor:
        return output_mean(predicted) * 2

    run, chosen = Run.open(own_run), IndexConfig(DEFAULT[:1], sketch_size=64)
    before = build_index(run, chosen).config
    kernel = method_named(DEFAULT[0])
    install(dataclasses.replace(kernel, name="another", measurements=(brightness,)))
    assert build_index(run, chosen).config == before
    with pytest.raises(RetracError, match="other settings"):
        build_index(run, dataclasses.replace(chosen, methods=("another",)))


def test_kernels_of_another_damping_are_other_records() -> None:
    kernel = method_named("trak")
    assert dataclasses.replace(kernel, metric=DampedKernel(Freedom(25))) == kernel
    for damping in (25, Freedom(26)):
        other = dataclasses.replace(kernel, metric=DampedKernel(damping))
        assert other.identity != kernel.identity
    assert dataclasses.replace(kernel, metric=DampedKernel(1.0)).feature == kernel.feature
