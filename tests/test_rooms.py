"""Rooms import only downwards, as docs/architecture.md draws them and pyproject.toml holds them."""

import re
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_import_between_rooms_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the linter adds to it
    broken = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    told = capsys.readouterr().out
    assert not broken, told
    contracts = PYPROJECT.count("[[tool.importlinter.contracts]]")
    assert f"{contracts} kept, 0 broken" in told


def test_every_room_has_its_place() -> None:
    [layers] = re.findall(r"^layers = \[(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    placed = set(re.findall(r"retrac\.(\w+)", layers))
    package = ROOT / "src/retrac"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert placed == rooms - {"__init__", "__main__", "__pycache__"}
