"""What long work will need, measured on a little of it before it starts."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from retrac.errors import RetracError
from retrac.files import disk_refusal

PASSES = 4
"""Work of no more passes than that is not worth an estimate: it would be measured by doing it."""
PROBE_SECONDS = 1.0
"""A measurement ends after so long, or with the pass that took longer."""
PROBE_REPEATS = 10


@dataclass(frozen=True)
class Estimate:
    """What a command will need from here on.

    Attributes:
        seconds: of wall time.
        memory: bytes that the process will hold at its peak, all of it together; on an
            accelerator, bytes there.
        disk: bytes that it will add to the disk at the most at any time.
    """

    seconds: float
    memory: int
    disk: int

    def __add__(self, other: "Estimate") -> "Estimate":
        """First the one, then the other."""
        return Estimate(
            self.seconds + other.seconds,
            max(self.memory, other.memory),
            self.disk + other.disk,
        )

    def __str__(self) -> str:
        return (
            f"about {told_time(self.seconds)}, {told_bytes(self.memory)} of memory, "
            f"{told_bytes(self.disk)} on disk"
        )


def told_time(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            amount = seconds / size
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"


def told_bytes(amount: int) -> str:
    """Bytes as people say them, in powers of 1024."""
    for unit, size in (("TB", 2**40), ("GB", 2**30)):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount / 2**20:.0f} MB" if amount >= 2**20 else "less than 1 MB"


def seconds_of(work: Callable[[], Any]) -> float:
    """How long some work takes once it has been done before.

    The first time counts only if it took so long that whatever was set up in it does not matter.
    """
    found = [_clocked(work)]
    if found[0] < PROBE_SECONDS:
        found = [_clocked(work)]  # without what was set up
        while len(found) < PROBE_REPEATS and sum(found) < PROBE_SECONDS:
            found.append(_clocked(work))
    return sum(found) / len(found)


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that this process has held so far, on the accelerator if there is one."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_reserved())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def standing(path: Path) -> Path:
    """The nearest folder above a path, or the path itself, that exists already."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder on the disk of `path`, for as long as something is measured.

    Raises:
        RetracError: that disk refuses; `path` is named, not the folder.
    """
    try:
        with TemporaryDirectory(prefix=".retrac-", dir=standing(path)) as folder:
            yield Path(folder)
    except Exception as error:
        if refusal := disk_refusal(error.__cause__ or error, path):
            raise refusal from error
        raise


def refuse_full_disk(estimate: Estimate, path: Path) -> None:
    """Refuse work that will not fit on the disk.

    Raises:
        RetracError: less is free where `path` is or will be.
    """
    free = shutil.disk_usage(standing(path)).free
    if free < estimate.disk:
        raise RetracError(
            f"{path} will need {told_bytes(estimate.disk)} on disk, and {told_bytes(free)} are "
            "free: free some disk space, or choose another --output"
        )


def _clocked(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
