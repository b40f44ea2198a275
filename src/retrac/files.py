"""Files that are either whole or absent: written under a temporary name, then renamed."""

import errno
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retrac.errors import RetracError

PARTIAL = ".partial"


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder; rename it to `path` once the body succeeds.

    An existing `path` is replaced, but no folder by a file. When the body fails, `path` is
    untouched.

    Raises:
        RetracError: no space left, no permission, or a folder is where the file should be; what was
            there before is still there.
    """
    path = path.absolute().resolve() if path.name in ("", "..") else path
    temporary = path.with_name(path.name + PARTIAL)
    replaced = path.with_name(path.name + ".replaced" + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        yield temporary
        if temporary.is_file() and path.is_dir():
            raise RetracError(f"cannot write {path}: a folder stands where a file is needed")
        remove(replaced)
        if path.is_dir():  # which no rename can replace
            path.rename(replaced)
        temporary.replace(path)
        remove(replaced)
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to tell
            remove(temporary)
        if refusal := disk_refusal(error, path):
            raise refusal from error
        raise


def disk_refusal(error: BaseException, path: Path | str) -> RetracError | None:
    """Translate what a disk can refuse into a RetracError; None for any other error.

    Libraries that write through Rust (safetensors) report a full disk in words, not as OSError.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "os error 28" in str(error):
        return RetracError(f"no space left to write {path}: free some disk space, then run again")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return RetracError(f"cannot write {path}: permission denied; choose another folder")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return RetracError(f"cannot write {path}: the name is too long")
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return RetracError(f"cannot write {path}: a file stands where a folder is needed")
    return None


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all; numbers that are not finite, which it has not, as null."""
    with write_whole(path) as temporary:
        text = json.dumps(_finite(content), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RetracError: absent, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RetracError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise RetracError(f"{path} cannot be read as JSON ({error}); it may be damaged") from None
    if not isinstance(content, dict):
        raise RetracError(f"{path} does not hold a JSON object; it may be damaged")
    return content


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
