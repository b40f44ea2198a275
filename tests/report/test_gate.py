"""Whether a derivative can be believed stands first, and cannot be overlooked."""

from collections.abc import Callable

import numpy as np
import pytest

from retrac.attribution.attribution import Attribution, set_of, variable_of
from retrac.report.content import doubted, gate
from retrac.report.page import render

MakeAttribution = Callable[..., Attribution]
SETS = 20


def unrolled(make: MakeAttribution, agreement: float | None, first: bool = True) -> Attribution:
    """Scores through a window; its replays are as foretold, or not, or there are none."""
    methods = ("unrolled", "tracin") if first else ("tracin", "unrolled")
    window = {"methods": ["unrolled"], "from_epoch": 2, "calibration_sets": SETS}
    made = make(methods=methods, config={"run": {}, "features": [window]})
    if agreement is None:
        return made
    stream = np.random.default_rng(0)
    foretold = stream.normal(size=(4, SETS))
    arrays = {
        "foretold": foretold,
        "replayed": agreement * foretold + 0.1 * stream.normal(size=foretold.shape),
        "first_foretold": np.full(4, 0.02),
        "first_replayed": np.full(4, 0.03),
    }
    named = {
        variable_of(name, "unrolled"): (
            ("query", set_of("unrolled")) if values.ndim == 2 else ("query",),
            values,
        )
        for name, values in arrays.items()
    }
    return Attribution(made.dataset.assign(named), made.config)


def header(page: str) -> str:
    return page[page.index("<header") : page.index("</header>")]


def test_what_agrees_with_replays_can_be_believed(make_attribution: MakeAttribution) -> None:
    result = unrolled(make_attribution, 1.0)
    believed, first = gate(result, "unrolled")
    assert believed.startswith("This can be believed: epochs 2 to 10 were replayed 20 times")
    assert "without a random 10 % of the samples" in believed and "correlates 0.98 (0." in believed
    assert "rose by +3.00 · 10⁻² on average; +2.00 · 10⁻² was foretold" in first
    assert believed in header(render(result, 10)) and not doubted(result)


@pytest.mark.parametrize("agreement", [0.0, -1.0])
def test_what_does_not_agree_is_not_to_be_believed(
    agreement: float, make_attribution: MakeAttribution
) -> None:
    result = unrolled(make_attribution, agreement)
    told, _ = gate(result, "unrolled")
    assert told.startswith("NOT TO BE BELIEVED: ") and "A shorter window may help" in told
    page = render(result, 10)
    assert told in header(page) and 'class="gate doubted"' in header(page)
    assert page.count("Not to be believed: see the top of this page.") == 4  # at every list


def test_without_replays_nobody_knows(make_attribution: MakeAttribution) -> None:
    result = unrolled(make_attribution, None)
    (told,) = gate(result, "unrolled")
    assert told.startswith("Whether this can be believed is not known")
    page = render(result, 10)
    assert told in header(page) and 'class="gate doubted"' in header(page)
    assert page.count("Whether to believe this is not known.") == 4 and not doubted(result)


def test_where_another_method_leads_the_gate_stands_with_its_answer(
    make_attribution: MakeAttribution,
) -> None:
    result = unrolled(make_attribution, 0.0, first=False)
    page = render(result, 10)
    assert gate(result, "tracin") == ()
    assert "gate" not in header(page) and page.count("NOT TO BE BELIEVED") == 4
