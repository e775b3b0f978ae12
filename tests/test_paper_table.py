"""``docs/paper.md``: every row names tests that exist, and nothing of the paper lacks a row."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGE = (ROOT / "docs" / "paper.md").read_text("utf-8")


def rows_of(page):
    """Return the cells of the rows of each table whose last column is "test"."""
    found, wanted = [], False
    lines = page.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|"):
            wanted = False
        elif following.startswith("|---"):
            wanted = line.endswith("| test |")
        elif wanted and not line.startswith("|---"):
            found.append([cell.strip() for cell in line.strip("| ").split(" | ")])
    return found


ROWS = rows_of(PAGE)
NAME = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def functions(file):
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_page_has_rows():
    assert len(ROWS) > 70


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_names_tests_that_exist(row):
    named = NAME.findall(row[-1])
    assert named, f"no test in the row {row[0]}"
    for file, test in named:
        assert test in functions(file), f"{file}::{test}"


def test_every_equation_has_a_row():
    """(1) to (82), alone or in ranges (a)-(b)."""
    covered = set()
    for row in ROWS:
        first = row[0]
        for low, high in re.findall(r"\((\d+)\)-\((\d+)\)", first):
            covered |= set(range(int(low), int(high) + 1))
        covered |= {int(k) for k in re.findall(r"\((\d+)\)", first)}
    assert covered >= set(range(1, 83)), sorted(set(range(1, 83)) - covered)


@pytest.mark.parametrize(
    "names",
    [
        [f"Lemma {k}" for k in ("3.1", "3.2", "3.3", "3.4", "4.1", "4.2")],
        [f"Figure {k}" for k in range(1, 7)],
        [f"C{k}" for k in range(1, 26)],
        [f"X{k}" for k in range(1, 19)],
    ],
    ids=["lemmas", "figures", "capabilities", "errata"],
)
def test_everything_has_a_row(names):
    firsts = [row[0] for row in ROWS]
    missing = [
        name
        for name in names
        if not any(first == name or first.startswith(f"{name},") for first in firsts)
    ]
    assert not missing


@pytest.mark.parametrize("number", range(1, 7))
def test_every_figure_has_a_script_of_its_own(number):
    script = ROOT / "examples" / "paper" / f"figure_{number}.py"
    tree = ast.parse(script.read_text("utf-8"))
    assert ast.get_docstring(tree).startswith(f"Figure {number}:")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 7))
def test_figures_run(number, tmp_path):
    script = ROOT / "examples" / "paper" / f"figure_{number}.py"
    few = ["--starts", "2"] if number == 6 else []
    done = subprocess.run(
        [sys.executable, script, "--out", tmp_path, *few],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        env={"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    picture = tmp_path / f"figure_{number}.png"
    assert picture.stat().st_size > 20_000
    assert done.stdout.endswith(f"picture {picture}\n")
