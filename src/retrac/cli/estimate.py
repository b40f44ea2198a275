"""What a command tells before it starts."""

import sys
from collections.abc import Callable
from pathlib import Path

from retrac.estimate import Estimate, refuse_full_disk
from retrac.progress import waiting


def announced(measure: Callable[[], Estimate | None], path: Path, dry_run: bool) -> bool:
    """Tell what a command will need; returns whether it is to start.

    Args:
        measure: gives the estimate; None for work that is done or hardly worth measuring, or shared
            by processes.
        path: what it will write.
        dry_run: tell, and do not start.

    Raises:
        RetracError: less space than that is free.
    """
    with waiting("measuring what it will need"):
        estimate = measure()
    if estimate is not None:
        print(estimate, file=sys.stderr)
        refuse_full_disk(estimate, path)
    elif dry_run:
        print("no estimate: little is left to do, or several processes share it", file=sys.stderr)
    return not dry_run
