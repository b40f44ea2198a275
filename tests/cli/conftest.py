"""Commands as a user gives them, in this process."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from retrac.cli.main import main
from tiny import PUBLISHED


@dataclass(frozen=True)
class Told:
    """What a command ended with and said."""

    code: int
    out: str
    err: str


Command = Callable[..., Told]

BOTH = ("--methods", *PUBLISHED)
"""The published methods, which are scored faster than those of the default."""


@pytest.fixture(scope="session")
def retrac() -> Command:
    """Run `retrac …`; a traceback would be an error of the test."""

    def command(*arguments: object) -> Told:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as end:  # --help, and what the parser refuses
                code = int(end.code or 0)
        return Told(code, out.getvalue(), err.getvalue())

    return command


@pytest.fixture
def refusal(retrac: Command) -> Callable[..., str]:
    """Run a command that fails: exit code 2 and one line, which is returned."""

    def command(*arguments: object) -> str:
        told = retrac(*arguments)
        assert told.code == 2, told
        *bars, line = told.err.strip().splitlines()
        assert all("/s " in bar or bar.startswith("about ") for bar in bars), told.err
        assert line.startswith("retrac: ")
        return line.removeprefix("retrac: ")

    return command
