"""Progress, on stderr."""

import pytest

from retrac.progress import progress


def test_a_bar_shows_what_is_done_and_a_note_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("sorting", total=10, unit="stamps", done=4) as advance:
        advance(5)
        advance(note="nearly")
    told = capsys.readouterr()
    assert told.out == ""
    assert all(word in told.err for word in ("sorting", "10/10", "stamps/s", "nearly"))


def test_a_hidden_bar_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("sorting", total=2, unit="stamps", shown=False) as advance:
        advance()
    assert capsys.readouterr() == ("", "")


def test_nothing_to_do_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("sorting", total=0, unit="stamps"):
        pass
    assert "– stamps/s" in capsys.readouterr().err
