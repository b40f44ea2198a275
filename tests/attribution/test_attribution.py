"""The questions people ask of scores, on scores written by hand."""

import numpy as np
import pytest
import xarray as xr

from retrac.attribution.attribution import Attribution, group_of, part_of
from retrac.errors import RetracError


def by_hand(scores: np.ndarray) -> Attribution:
    """An attribution `[method, checkpoint, query, sample]` with labels and images."""
    methods, checkpoints, queries, samples = scores.shape
    image = ("channel", "row", "column")
    return Attribution(
        xr.Dataset(
            {
                "score": (("method", "checkpoint", "query", "sample"), scores.astype("f4")),
                "train_timestep": (
                    ("checkpoint", "sample", "visit"),
                    np.arange(checkpoints * samples).reshape(checkpoints, samples, 1),
                ),
                "query_image": (("query", *image), np.zeros((queries, 1, 2, 2), "u1")),
                "sample_image": (("shown", *image), np.zeros((1, 1, 2, 2), "u1")),
            },
            coords={
                "method": ["tracin", "retrac"][:methods],
                "checkpoint": np.arange(1, checkpoints + 1),
                "shown": [0],
                "query_id": ("query", [f"q{i}" for i in range(queries)]),
                "query_label": ("query", [""] * queries),
                "sample_id": ("sample", [f"s{i}" for i in range(samples)]),
                "sample_label": ("sample", [f"ö{i % 2}" for i in range(samples)]),
            },
        ),
        {"run": {"run": "by hand"}},
    )


def test_checkpoints_add_up() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 3, 2, 5))
    np.testing.assert_allclose(by_hand(scores).scores, scores.sum(1), atol=1e-6)


def test_proponents_are_the_highest_and_opponents_the_lowest() -> None:
    result = by_hand(np.array([[[[0.1, -3.0, 2.0, 0.5]]]]))
    assert [e.id for e in result.proponents(0, "tracin", k=2)] == ["s2", "s3"]
    assert [e.id for e in result.opponents(0, "tracin", k=2)] == ["s1", "s0"]
    first = result.proponents(0, "tracin", k=1)[0]
    assert (first.rank, first.sample, first.label) == (1, 2, "ö0")
    assert first.score == pytest.approx(2.0)
    assert first.timesteps == (2,)
    assert len(result.proponents(0, "tracin", k=99)) == 4


def test_a_sample_is_generally_influential_from_a_quarter_of_the_queries_on() -> None:
    scores = np.zeros((1, 1, 8, 20))
    for query in range(8):
        scores[0, 0, query, 10 + query] = 1.0  # its own
    scores[0, 0, :2, 3] = 2.0  # two of eight: a quarter
    scores[0, 0, 4:5, 4] = 2.0  # one of eight
    assert by_hand(scores).generally_influential("tracin", k=1) == {3: 2}
    assert by_hand(scores).generally_influential("tracin", k=1, share=0.3) == {}


def test_one_query_makes_nothing_generally_influential() -> None:
    assert by_hand(np.ones((1, 1, 1, 5))).generally_influential("tracin", k=5) == {}


def test_saved_and_opened_again(tmp_path) -> None:
    result = by_hand(np.random.default_rng(0).normal(size=(2, 2, 3, 7)))
    result.save(tmp_path / "a")
    again = Attribution.open(tmp_path / "a")
    xr.testing.assert_identical(again.dataset.drop_attrs(), result.dataset.drop_attrs())
    assert again.config == result.config
    assert again.proponents(1, "retrac", 3) == result.proponents(1, "retrac", 3)


def test_what_is_no_attribution_is_refused(tmp_path) -> None:
    with pytest.raises(RetracError, match="is not an attribution"):
        Attribution.open(tmp_path)
    by_hand(np.ones((1, 1, 1, 2))).save(tmp_path / "a")
    for file in (tmp_path / "a" / "scores.zarr" / "score").iterdir():
        file.write_bytes(b"garbage")
    with pytest.raises(RetracError, match="is damaged"):
        Attribution.open(tmp_path / "a")


def test_a_method_or_query_that_is_not_there() -> None:
    result = by_hand(np.ones((1, 1, 1, 2)))
    with pytest.raises(RetracError, match="unknown method 'retrac'"):
        result.proponents(0, "retrac")
    with pytest.raises(RetracError, match="query 3 does not exist"):
        result.proponents(3, "tracin")


def test_a_contribution_that_is_not_a_number_is_not_passed_over() -> None:
    assert np.isnan(by_hand(np.array([[[[np.nan]], [[1.0]]]])).scores.values).all()


def test_saving_replaces_an_earlier_attribution_and_nothing_else(tmp_path) -> None:
    result = by_hand(np.ones((1, 1, 1, 2)))
    (tmp_path / "empty").mkdir()
    result.save(tmp_path / "empty")
    result.save(tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RetracError, match="holds something other than an attribution"):
        result.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_saving_into_the_working_directory(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    by_hand(np.ones((1, 1, 1, 2))).save(".")
    assert Attribution.open(tmp_path / "here").methods == ("tracin",)


def test_scores_know_how_sure_they_are() -> None:
    result = by_hand(np.random.default_rng(0).standard_normal((2, 3, 2, 24)))
    method = result.methods[0]
    sure = result.uncertainty(method)
    assert sure.groups == 3
    np.testing.assert_allclose(sure.scores, result.scores_of(method), atol=1e-5)
    assert sure.errors.shape == (2, 24) and (sure.errors > 0).all()
    with pytest.raises(RetracError, match="more --checkpoints"):
        by_hand(np.ones((2, 1, 2, 24))).uncertainty(method)
    with pytest.raises(RetracError, match="unknown method"):
        result.uncertainty("magic")


def test_errors_are_kept_with_the_scores_where_they_can_be_told() -> None:
    told = by_hand(np.random.default_rng(0).standard_normal((2, 3, 2, 24))).with_errors()
    sure = told.uncertainty("retrac")
    of_retrac = told.dataset.sel({"method": "retrac"})
    np.testing.assert_allclose(of_retrac["error"], sure.errors, rtol=1e-6)
    np.testing.assert_array_equal(of_retrac["certain"], sure.first(10).certain)
    np.testing.assert_array_equal(of_retrac["repeatability"], sure.first(10).repeatability)
    assert of_retrac["freedom"].shape == of_retrac["halves"].shape == (2,)
    alone = by_hand(np.ones((2, 1, 2, 24)))
    assert "error" not in alone.with_errors().dataset


def test_a_single_checkpoint_s_errors_come_from_its_parts() -> None:
    parts = np.random.default_rng(0).standard_normal((2, 4, 3, 24))
    alone = by_hand(parts.sum(1, keepdims=True))
    dims = (group_of("tracin"), "query", "sample")
    found = Attribution(alone.dataset.assign({part_of("tracin"): (dims, parts[0])}), alone.config)
    assert (alone.groups("tracin"), found.groups("tracin"), found.groups("retrac")) == (1, 4, 1)
    assert found.sure == ("tracin",) and found.with_errors().dataset["error"][1].isnull().all()
    one, four = found.uncertainty("tracin"), by_hand(parts).uncertainty("tracin")
    np.testing.assert_allclose(one.errors, four.errors, rtol=1e-5)
