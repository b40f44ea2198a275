"""A result is opened again only for the settings that it was made with."""

from pathlib import Path
from typing import Any

import pytest

from retrac.attribution.store import refuse_other
from retrac.errors import RetracError

RESULT = Path("attributions/one")


@pytest.mark.parametrize("name", ["precision", "until", "layer_weights", "whatever comes"])
def test_what_is_told_only_where_it_is_unusual_tells_results_apart(name: str) -> None:
    usual: dict[str, Any] = {"methods": ["retrac"]}
    unusual = {**usual, name: 2}
    refuse_other(RESULT, {**unusual, "run": {}}, unusual)
    for found, asked in ((usual, unusual), (unusual, usual)):
        with pytest.raises(RetracError, match=rf"other settings \({name} was"):
            refuse_other(RESULT, found, asked)


def test_what_differs_is_said() -> None:
    refuse_other(RESULT, {"replay": "last", "reached": 3}, {"replay": "last"})
    refuse_other(RESULT, {"queries": "a"}, {}, unknown=("queries",))
    with pytest.raises(RetracError, match="until was 3, now the usual"):
        refuse_other(RESULT, {"until": 3}, {})
    with pytest.raises(RetracError, match="replay was last, now all"):
        refuse_other(RESULT, {"replay": "last"}, {"replay": "all"})
