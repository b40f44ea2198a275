"""Short names by which contents are known again."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PIECE = 2**24
"""Bytes of a file that are read at a time."""


def digest(*contents: Any) -> str:
    """A short fingerprint of JSON values and arrays."""
    found = hashlib.sha256()
    for content in contents:
        if isinstance(content, np.ndarray):
            found.update(str(content.shape).encode() + np.ascontiguousarray(content).tobytes())
        else:
            found.update(json.dumps(content, sort_keys=True).encode())
    return found.hexdigest()[:16]


def fingerprint(*files: Path) -> str:
    """SHA-256 of files, one after the other; read again where a size or a time is another."""
    found = [_fingerprint(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


@cache
def _fingerprint(file: Path, size: int, changed: int) -> str:
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            found.update(piece)
    return found.hexdigest()
