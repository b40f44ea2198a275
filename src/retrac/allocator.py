"""Keep freed memory, on Linux: passes allocate and free the same gigabyte again and again."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of giving it back to the system.

    Otherwise every page comes back empty and is faulted in again, which takes a fifth of a training
    step and more of a scoring pass. The peak is the same; what was freed stays with the process.
    Does nothing where there is no glibc.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_MMAP_MAX, 0)


def release_freed_memory() -> None:
    """Give back what one kind of work has freed, before another kind needs pieces of other sizes,
    which would not fit where the old ones were. Does nothing where there is no glibc."""
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[..., Any] | None = getattr(ctypes.CDLL(None), name, None)
    return found
