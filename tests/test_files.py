"""Files are whole or absent, and what was there before survives a failure."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrac.attribution.parts import Parts
from retrac.errors import RetracError, unknown
from retrac.files import disk_refusal, read_json, remove, write_json, write_whole


def write_file(path: Path, text: str = "new") -> None:
    with write_whole(path) as temporary:
        temporary.write_text(text)


def write_folder(path: Path, text: str = "new") -> None:
    with write_whole(path) as temporary:
        temporary.mkdir()
        (temporary / "inner").write_text(text)


def content(path: Path) -> str:
    return (path / "inner" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("earlier", [None, write_file, write_folder])
@pytest.mark.parametrize("write", [write_file, write_folder])
def test_what_is_written_takes_the_place_of_what_was_there(
    write: Callable[[Path, str], None], earlier: Callable[[Path, str], None] | None, tmp_path: Path
) -> None:
    path = tmp_path / "new folder/thing"
    if earlier is not None:
        earlier(path, "old")
    if earlier not in (None, write):  # a file and a folder never take each other's place
        with pytest.raises(RetracError, match="stands where a f"):
            write(path, "new")
        assert content(path) == "old"
    else:
        write(path, "new")
        assert content(path) == "new"
    assert [other.name for other in path.parent.iterdir()] == ["thing"]


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(
    write: Callable[[Path, str], None], error: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "thing"
    write(path, "old")
    with pytest.raises(type(error)), write_whole(path) as temporary:
        temporary.write_text("half")
        raise error
    assert content(path) == "old"
    assert [other.name for other in tmp_path.iterdir()] == ["thing"]


@pytest.mark.parametrize("leftover", [write_file, write_folder])
@pytest.mark.parametrize("write", [write_file, write_folder])
def test_leftovers_of_a_kill_are_no_hindrance(
    write: Callable[[Path], None], leftover: Callable[[Path], None], tmp_path: Path
) -> None:
    leftover(tmp_path / "thing.partial")
    write(tmp_path / "thing")
    assert content(tmp_path / "thing") == "new"
    assert [other.name for other in tmp_path.iterdir()] == ["thing"]


def test_a_file_among_the_parents_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file/thing", tmp_path / "file/more/thing"):
        with pytest.raises(RetracError, match=f"cannot write {path}: a file stands where"):
            write_file(path)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left to write x"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left to write x"),
        (RuntimeError("Error: I/O error: No space left (os error 28)"), "no space left to write x"),
        (PermissionError(errno.EACCES, "no"), "cannot write x: permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write x: permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "cannot write x: the name is too long"),
        (NotADirectoryError(errno.ENOTDIR, "no"), "cannot write x: a file stands where"),
    ],
)
def test_what_a_disk_refuses_is_said_in_one_line(error: Exception, told: str) -> None:
    assert told in str(disk_refusal(error, "x"))


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), FileNotFoundError(2, "x")])
def test_other_errors_are_not_the_disk_s(error: Exception) -> None:
    assert disk_refusal(error, "x") is None


def test_a_full_disk_within_a_write(tmp_path: Path) -> None:
    """/dev/full takes nothing, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with (
        pytest.raises(RetracError, match=f"no space left to write {tmp_path / 'thing'}"),
        write_whole(tmp_path / "thing") as temporary,
    ):
        temporary.symlink_to("/dev/full")
        with temporary.open("w") as file:
            file.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values))
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, told: dict) -> None:  # type: ignore[type-arg]
    path = tmp_path_factory.getbasetemp() / "some.json"
    write_json(path, told)
    assert read_json(path) == told


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "some.json", {"a": [1.5, (float("nan"), {"b": float("-inf")})]})
    assert read_json(tmp_path / "some.json") == {"a": [1.5, [None, {"b": None}]]}
    assert "NaN" not in (tmp_path / "some.json").read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "does not exist"),
        (b'{"a": ', "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[1]", "does not hold a JSON object"),
    ],
)
def test_what_is_no_json_object_is_named(text: bytes | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(RetracError, match=rf"some\.json {told}"):
        read_json(path)


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    write_file(tmp_path / "file"), write_folder(tmp_path / "folder")
    for name in ("file", "folder", "nothing", "no/thing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_name_is_offered_if_one_is_near() -> None:
    known = ("digits", "mnist")
    assert str(unknown("dataset", "digit", known)).startswith(
        "unknown dataset 'digit': did you mean 'digits'? (known: digits, mnist)"
    )
    assert "did you mean" not in str(unknown("dataset", "zzz", known))


@pytest.mark.parametrize("name", ["folder", ".", "folder/.."])
def test_a_file_never_replaces_a_folder(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    with pytest.raises(RetracError, match="a folder stands where a file is needed"):
        write_json(Path(name), {})
    assert (tmp_path / "folder" / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_of_others_is_not_deleted_for_pieces(tmp_path: Path) -> None:
    (tmp_path / "one.parts").mkdir()
    (tmp_path / "one.parts" / "notes.txt").write_text("mine")
    with pytest.raises(RetracError, match="holds something else: move it away"):
        Parts(tmp_path / "one.parts", {})
    assert (tmp_path / "one.parts" / "notes.txt").read_text() == "mine"
