"""Shares of groups of layers in the scores, and weights that are learnt from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrac
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
from retrac.attribution.layer_weights import LayerWeights, learnt, learnt_from
from retrac.errors import RetracError
from retrac.training.run import Run

METHODS = ("kernel-retrac", "cosine", "retrac", "tracin", "adam")
FEW = {
    "checkpoints": [4, 6],
    "plan": PlanConfig(plan_timesteps=2, plan_noises=2),
    "features": FeatureConfig(draws="small", layer_numbers=16),
    "parameters": "^(mid_block.*conv|up_blocks.*(conv|time_emb)|conv_norm_out|conv_out)",
}


@pytest.fixture(scope="module")
def result(tiny_run: Run) -> Attribution:
    return retrac.attribute(tiny_run, "train:2", METHODS, by_layer=True, **FEW)


@pytest.fixture(scope="module")
def weights(result: Attribution) -> LayerWeights:
    """Some, other for each method."""
    names = map(str, result.dataset["layer"].values)
    each = {name: 0.5 + number for number, name in enumerate(names)}
    found = {m: {n: w + 0.1 * i for n, w in each.items()} for i, m in enumerate(METHODS)}
    return LayerWeights(str(FEW["parameters"]), found)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_layers_add_up_to_the_scores_of_every_method(result: Attribution, tiny_run: Run) -> None:
    plain = retrac.attribute(tiny_run, "train:2", METHODS, **FEW)
    assert {*result.dataset["layer"].values} == {
        "mid_block", "up_blocks.0", "up_blocks.1", "conv_norm_out", "conv_out",
    }  # fmt: skip
    for method in METHODS:
        assert_close(result.layers(method).sum("layer").values, plain.scores_of(method).values)
        assert (np.abs(result.layers(method)).max(("query", "sample")) > 0).all()


def test_of_products_a_layer_s_share_is_the_score_of_its_parameters_alone(
    result: Attribution, tiny_run: Run
) -> None:
    some = {**FEW, "parameters": "^up_blocks.0.*(conv|time_emb)"}
    alone = retrac.attribute(tiny_run, "train:2", ("tracin", "adam"), **some)
    for method in alone.methods:
        share = result.layers(method).sel(layer="up_blocks.0").values
        assert_close(share, alone.scores_of(method).values)


def test_weights_weigh_layers_shares(
    result: Attribution, weights: LayerWeights, tiny_run: Run, tmp_path: Path
) -> None:
    weights.write(tmp_path / "w.json")
    assert LayerWeights.read(tmp_path / "w.json") == weights
    found = retrac.attribute(
        tiny_run, "train:2", METHODS, by_layer=True, layer_weights=tmp_path / "w.json", **FEW
    )
    for method in METHODS:
        layers = result.layers(method)
        factors = [weights.by_method[method][name] for name in layers["layer"].values]
        expected = layers.values * np.array(factors)[:, None, None]
        assert_close(found.layers(method).values, expected)
        assert_close(found.scores_of(method).values, expected.sum(0))
        assert_close(found.parts(method).sum(0), expected.sum(0))
    assert found.config["layer_weights"]["tracin"] == weights.by_method["tracin"]


def test_an_index_takes_weights_too(weights: LayerWeights, own_run: Path, tmp_path: Path) -> None:
    """What every second layer and the others say adds up to what all say."""
    run, parameters = Run.open(own_run), str(FEW["parameters"])
    build_index(run, IndexConfig(sketch_size=500, parameters=parameters, checkpoints=(6,)))
    chosen, plan = (
        ("kernel-retrac", "retrac", "tracin"),
        PlanConfig(plan_timesteps=2, plan_noises=2),
    )

    def scored(path: Path | None) -> Attribution:
        return retrac.attribute(run, "train:2", chosen, index=True, layer_weights=path, plan=plan)

    plain = scored(None)
    total = np.zeros_like(plain.scores.values)
    for half in range(2):
        some = {name: float(at % 2 == half) for at, name in enumerate(weights.by_method["retrac"])}
        LayerWeights(parameters, dict.fromkeys(chosen, some)).write(tmp_path / "some.json")
        total += scored(tmp_path / "some.json").scores.values
    compute = ComputeConfig(precision="float64")
    wide = retrac.attribute(run, "train:2", chosen, index=True, plan=plan, compute=compute)
    np.testing.assert_allclose(
        wide.scores_of("kernel-retrac"), plain.scores[0], rtol=1e-2, atol=1e-4
    )
    for place in range(len(chosen)):
        assert_close(total[place], plain.scores.values[place])


def test_what_weights_do_not_fit_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "w.json"

    def refused(match: str, content: str) -> None:
        path.write_text(content)
        for chosen in ("tracin", "kernel-retrac"):
            with pytest.raises(RetracError, match=match):
                Engine.of(tiny_run, AttributeConfig((chosen,), layer_weights=path))

    def content(method: str, **weights: object) -> str:
        return json.dumps({"parameters": ".*", "weights": {method: weights}})

    refused("w.json does not hold a JSON object", "[]")
    refused("w.json holds no weights of layers", "{}")
    refused("w.json holds no weights of layers", content("tracin", conv_in="much"))
    refused("not between 0 and", content("tracin", conv_in=float("nan")))
    refused("not between 0 and", content("tracin", conv_in=-1))
    refused("no weight above 0 for tracin", content("tracin", conv_in=0))
    refused("has weights for adam, not for ", content("adam", conv_in=1))
    refused("learnt with --parameters 'conv', and now ", content("x", a=1).replace(".*", "conv"))
    both = {name: {"conv_in": 1, "other": 1} for name in ("tracin", "kernel-retrac")}
    refused("is of another network: ", json.dumps({"parameters": ".*", "weights": both}))
    with pytest.raises(RetracError, match=r"none\.json does not exist"):
        Engine.of(tiny_run, AttributeConfig(layer_weights=tmp_path / "none.json"))
    with pytest.raises(RetracError, match="--by-layer does not go with --index"):
        AttributeConfig(by_layer=True, index=True)


def test_only_earlier_weights_are_replaced(weights: LayerWeights, tmp_path: Path) -> None:
    weights.write(tmp_path / "w.json")
    weights.write(tmp_path / "w.json")
    (tmp_path / "run.json").write_text('{"config": {}}')
    (tmp_path / "folder").mkdir()
    for name in ("run.json", "folder"):
        with pytest.raises(RetracError, match="holds something other than weights"):
            weights.write(tmp_path / name)
    assert (tmp_path / "run.json").read_text() == '{"config": {}}'


def test_weights_are_learnt_from_layers_without_weights(result: Attribution, tiny_run: Run) -> None:
    found = learnt_from(result, 3)
    assert found.parameters == FEW["parameters"]
    assert set(found.by_method) == set(METHODS)
    weighted = Attribution(result.dataset, {**result.config, "layer_weights": {}})
    with pytest.raises(RetracError, match="are weighted already"):
        learnt_from(weighted, 3)
    with pytest.raises(RetracError, match="attribute again with --by-layer"):
        learnt_from(Attribution(result.dataset.drop_vars("layer_score"), result.config), 3)


def test_a_single_group_is_the_score(own_run: Path) -> None:
    run = Run.open(own_run)  # which keeps a curvature
    for name in ("tracin", "ekfac", "kernel-retrac"):
        some = {**FEW, "checkpoints": [6], "parameters": "conv_out"}
        found = retrac.attribute(run, "train:1", (name,), by_layer=True, **some)
        assert list(found.dataset["layer"].values) == ["conv_out"]
        assert_close(found.layers(name).values[0], found.scores_of(name).values)


def speaking(groups: int = 4, queries: int = 6, samples: int = 40) -> np.ndarray:
    """Contributions of which the first group alone knows the right samples."""
    stream = np.random.default_rng(0)
    found = stream.standard_normal((groups, queries, samples))
    for query in range(queries):
        found[0, query, stream.permutation(samples)[:5]] += 6
    return found


def test_a_layer_that_knows_is_heard() -> None:
    found = learnt(speaking(), k=5, evenness=0)
    assert found[0] > 3 and found.mean() == pytest.approx(1)
    assert learnt(speaking(), k=5, evenness=100) == pytest.approx(np.ones(4), abs=0.1)


@given(st.integers(0, 100), st.floats(1e-6, 1e6))
def test_weights_are_positive_and_know_no_units_and_no_order(seed: int, unit: float) -> None:
    contributions = np.random.default_rng(seed).standard_normal((3, 2, 12))
    found = learnt(contributions, k=3)
    assert (found > 0).all() and found.mean() == pytest.approx(1)
    np.testing.assert_allclose(learnt(unit * contributions, k=3), found, rtol=1e-3)
    np.testing.assert_allclose(learnt(contributions[::-1], k=3)[::-1], found, rtol=1e-2, atol=1e-3)


def test_nothing_is_learnt_from_nothing() -> None:
    assert (learnt(np.zeros((3, 2, 12)), k=3) == 1).all()
    with pytest.raises(RetracError, match="lists of 12 of 12 samples say nothing"):
        learnt(np.ones((3, 2, 12)), k=12)
    with pytest.raises(RetracError, match="not finite"):
        learnt(np.full((3, 2, 12), np.nan), k=3)
