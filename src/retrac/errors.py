"""What a user can cause: one line that says what was wrong, with what, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class RetracError(Exception):
    """An error with a one-line message for the user; the command line prints it and exits 2."""

    exit_code = 2


def unknown(kind: str, name: str, known: Iterable[str]) -> RetracError:
    """Build the error for a name that is not among `known`, with the nearest one that is."""
    options = sorted(known)
    near = get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return RetracError(f"unknown {kind} {name!r}{hint} (known: {', '.join(options)})")


def first_line(error: Exception) -> str:
    """What an error of another library says, in its first line."""
    return (str(error).strip().splitlines() or [repr(error)])[0].rstrip(".")
