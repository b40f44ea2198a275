import subprocess
import sys

import pytest

FREED = """
import sys
import psutil
import torch
from retrac.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
before = psutil.Process().memory_info().rss
pieces = [torch.ones(3 * 2**20) for _ in range(20)]
del pieces
print(psutil.Process().memory_info().rss - before)
"""

HELD = """
import sys
import psutil
import torch
from retrac.allocator import keep_freed_memory, release_freed_memory
keep_freed_memory()
pieces = [torch.ones(2**16) for _ in range(800)]
del pieces
if sys.argv[1] == "release":
    release_freed_memory()
print(psutil.Process().memory_info().rss)
"""


def told(program: str, how: str) -> int:
    command = [sys.executable, "-c", program, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_freed_memory_stays_with_the_process():
    assert told(FREED, "keep") > told(FREED, "give back") + 150 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_kept_memory_can_be_given_back():
    assert told(HELD, "release") < told(HELD, "keep") - 150 * 2**20
