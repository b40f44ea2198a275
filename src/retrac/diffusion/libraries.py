"""What other libraries say while they load, and would rather not be asked about here."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

import diffusers.utils.logging

from retrac.errors import RetracError


@contextmanager
def quiet() -> Iterator[None]:
    """Without their warnings and progress bars: whether what is loaded fits is checked here."""
    libraries = [diffusers.utils.logging]
    if find_spec("transformers") is not None:
        libraries.append(import_module("transformers.utils.logging"))
    before = [(each.get_verbosity(), each.is_progress_bar_enabled()) for each in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # names that old versions need
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def require(library: str, what_for: str) -> None:
    """Refuse to go on without a library that is not always installed.

    Raises:
        RetracError: it is missing.
    """
    if find_spec(library) is None:
        raise RetracError(
            f"{what_for} take the library {library}, which is not installed: "
            'pip install "diffusion-retrac[text]"'
        )
