"""A package that adds a method, as docs/adding-a-method.md has it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import retrac
from retrac.training.run import Run

PACKAGE = Path(__file__).parent / "outside_package"
PAGE = Path(__file__).parents[1] / "docs/adding-a-method.md"


def test_the_page_has_the_package_s_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, language in (("retrac_diagonal.py", "python"), ("pyproject.toml", "toml")):
        code = (PACKAGE / name).read_text(encoding="utf-8")
        assert f"`{name}`:\n\n```{language}\n{code}```\n" in page
        assert len(list(filter(None, code.splitlines()))) < 30


def test_a_package_adds_a_method(tiny_run: Run, tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = shutil.copytree(PACKAGE, tmp_path / "source")  # what is built leaves traces
    alone = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    install = ("-m", "pip", "install", "--quiet", *alone, "--target", tmp_path / "there", source)
    subprocess.run([sys.executable, *install], check=True)
    paths = [str(tmp_path / "there"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    command = (
        *("-m", "retrac", "attribute", tiny_run.path, "--queries", "train:2"),
        *("--methods", "diagonal", "trak", "--draws", "small", "--layer-numbers", "8"),
        *("--output", tmp_path / "scores"),
    )
    told = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "Diagonal curvature" in told.stdout
    found = retrac.Attribution.open(tmp_path / "scores")
    assert found.methods == ("diagonal", "trak")
    scores = found.scores_of("diagonal")
    assert scores.notnull().all() and scores.any("sample").all()
    # Here, where the package is not installed, its scores can be read all the same.
    assert "diagonal" not in retrac.methods() and found.proponents(0, "diagonal", 1)
