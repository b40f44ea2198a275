"""Numbers and names as the page writes them."""

import pytest

from retrac.report import wording


@pytest.mark.parametrize(
    ("values", "exponent"), [([], 0), ([0.0], 0), ([3e-7, -5e-5], -5), ([250, float("nan")], 2)]
)
def test_exponent(values, exponent):
    assert wording.exponent(values) == exponent


def test_scores_share_a_power_of_ten():
    assert wording.signed(3.14159e-5, -5) == "+3.14"
    assert wording.signed(-2e-6, -5) == "−0.20"
    assert wording.signed(float("nan"), 0) == "+nan"
    assert wording.power(-12) == "10⁻¹²"


def test_tally_counts_labels_and_skips_missing_ones():
    assert wording.tally(["3", "8", "3", ""]) == ([("3", 2), ("8", 1)], 0)
    assert wording.tally(["3", "3", "8", "8", "1", "1", "0", "5"])[1] == 2
    assert wording.tally(["", ""]) == ([], 0)


def test_facts_are_flat_and_readable():
    settings = {"batch_size": 64, "plan": {"noises": 4, "seeds": [1, 2]}, "ema": None, "flip": True}
    assert wording.facts(settings) == [
        ("batch size", "64"),
        ("plan: noises", "4"),
        ("plan: seeds", "1, 2"),
        ("ema", "–"),
        ("flip", "yes"),
    ]


def test_facts_in_a_list_are_numbered():
    assert wording.facts({"features": [{"draws": "visits"}, {"draws": "medium"}]}) == [
        ("features 1: draws", "visits"),
        ("features 2: draws", "medium"),
    ]


@pytest.mark.parametrize(
    ("certain", "repeatability", "belong", "again"),
    [
        (0, 0.0, "None of these 8 is very likely to belong here", "hardly any"),
        (1, 0.3, "1 of these 8 very likely belongs here", "about 2"),
        (3, 0.6, "3 of these 8 very likely belong here", "about 5"),
        (8, 0.99, "All of these 8 very likely belong here", "nearly all"),
    ],
)
def test_how_sure_a_list_is(certain: int, repeatability: float, belong: str, again: str) -> None:
    assert wording.sure(certain, repeatability, 8) == (
        f"{belong}. A repeat with other random draws would show {again} of them again."
    )


def test_a_sentence_goes_on_with_a_small_letter() -> None:
    assert wording.continued("By how much") == "by how much"
    assert wording.continued("") == ""


def test_errors_have_the_unit_of_their_scores() -> None:
    assert wording.error(3.14e-5, -4) == "±\u00a00.31"
