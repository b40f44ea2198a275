"""How much memory a call takes at most, and a limit that makes too much of it an error."""

import ctypes
import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

PROCESS = Path("/proc/self")
SHARE = 0.8
"""Of the machine's free memory that one row may take."""


@dataclass
class Peak:
    """The most memory taken beyond what was taken before, once it is known."""

    bytes: int = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Watch the memory of a device; on the CPU, what of this process is in memory (Linux)."""
    peak = Peak()
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated() - before
    else:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would hide what is taken now
        (PROCESS / "clear_refs").write_text("5")  # sets the highest so far to what is taken now
        before = _status("VmRSS")
        yield peak
        peak.bytes = _status("VmHWM") - before


def limit_memory(device: str) -> None:
    """Let this process fail alone, before others on the machine lack memory."""
    if not device.startswith("cuda"):
        most = _status("VmData") + int(SHARE * psutil.virtual_memory().available)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _status(field: str) -> int:
    """A number of bytes that the kernel knows of this process."""
    for line in (PROCESS / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)
