"""Tables: what is written is read, chunk by chunk, as far as float16 reaches."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from retrac.errors import RetracError
from retrac.store.table import CHUNK, CHUNK_BYTES, Column, Table, rows_in_chunk

COLUMNS = {
    "sums": Column((2, 3, 30), "float16", apart=1),
    "norm": Column((4,), "float32"),
    "count": Column((2,), "int64", apart=1),
}


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    """Of 5 samples, of very different length."""
    stream = np.random.default_rng(0)
    sums = stream.normal(size=(5, 2, 3, 30)).astype(np.float32)
    sums *= np.float32(10.0) ** np.array([-30, -9, 0, 9, 30], np.float32)[:, None, None, None]
    sums[2, 0, 1] = 0
    norm = stream.normal(size=(5, 4)).astype(np.float32)
    return {"sums": sums, "norm": norm, "count": stream.integers(0, 9, (5, 2))}


def filled(path: Path, rows: dict[str, np.ndarray]) -> Table:
    table = Table(path)
    table.create(COLUMNS, 5, 3)
    for chunk in table.missing:
        table.write(chunk, {name: values[chunk] for name, values in rows.items()})
    return table


def test_what_is_written_is_read(tmp_path, rows):
    table = filled(tmp_path / "table", rows)
    assert table.is_whole
    largest = np.abs(rows["sums"]).max(axis=-1, keepdims=True)
    assert (np.abs(table.read("sums") - rows["sums"]) <= 1e-3 * largest).all()
    assert table.read("sums").dtype == np.float32
    for name in ("norm", "count"):
        np.testing.assert_array_equal(table.read(name), rows[name])


def test_parts_are_read(tmp_path, rows):
    table = filled(tmp_path / "table", rows)
    every = table.read("sums")
    np.testing.assert_array_equal(table.read("sums", slice(1, 4)), every[1:4])
    np.testing.assert_array_equal(table.read("sums", slice(None), 1), every[:, 1])
    np.testing.assert_array_equal(table.read("count", slice(None), 1), rows["count"][:, 1])


def test_bins_lie_apart_on_disk(tmp_path):
    table = Table(tmp_path / "table")
    table.create(COLUMNS, 5, 3)
    chunks = {
        name: zarr.open_array(str(table.path / f"{name}.zarr"), mode="r").chunks
        for name in ("sums", "sums-scale", "norm", "count")
    }
    assert chunks == {
        "sums": (3, 1, 3, 30),
        "sums-scale": (3, 1, 3),
        "norm": (3, 4),
        "count": (3, 1),
    }


def test_a_chunk_counts_once_it_is_there(tmp_path, rows):
    table = Table(tmp_path / "table")
    assert not table.is_begun and not table.is_whole
    table.create(COLUMNS, 5, 3)
    assert table.chunks == table.missing == [slice(0, 3), slice(3, 5)]
    table.write(slice(3, 5), {name: values[3:] for name, values in rows.items()})
    assert table.missing == [slice(0, 3)] and table.is_begun and not table.is_whole
    table.create(COLUMNS, 5, 3)
    assert len(table.missing) == 2


def test_to_know_the_chunks_one_array_is_opened(tmp_path, rows, monkeypatch):
    table = filled(tmp_path / "table", rows)
    opened: list[str] = []
    open_array = zarr.open_array
    monkeypatch.setattr(
        zarr,
        "open_array",
        lambda path, **options: opened.append(path) or open_array(path, **options),
    )
    assert len(table.chunks) == 2 and len(opened) == 1


@pytest.mark.parametrize("name", ["sums", "sums-scale", "norm", "done"])
def test_damage_is_told_in_one_line(tmp_path, rows, name):
    table = filled(tmp_path / "table", rows)
    files = [path for path in (table.path / f"{name}.zarr").rglob("*") if path.is_file()]
    for piece in [path for path in files if path.suffix != ".json" and path.name[0] != "."]:
        piece.write_bytes(piece.read_bytes()[:5])
    with pytest.raises(RetracError, match=rf"{name}\.zarr is damaged .*make it again") as refusal:
        table.read(name.removesuffix("-scale"))
    assert "\n" not in str(refusal.value)


def test_chunks_are_of_a_size_that_memory_takes():
    assert rows_in_chunk({"small": Column((10,), "float16")}) == CHUNK
    large = {"large": Column((8, 2**20), "float16", apart=1)}
    assert rows_in_chunk(large) == CHUNK_BYTES // (4 * 8 * 2**20)
    assert rows_in_chunk({"huge": Column((2**30,), "float16")}) == 1
