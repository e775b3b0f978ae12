"""docs/tour.md: every stop names a file of the package and something that is in it.

How many files a reader of one call passes through is held, too.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

import sparse_argdiff as sad

PACKAGE = Path(sad.__file__).parent
TOUR = PACKAGE.parent / "docs" / "tour.md"
TEXT = TOUR.read_text("utf-8") if TOUR.exists() else ""
STOPS = re.findall(
    r"^\| (\d+) \| `([\w/]+\.py)` \| `([\w.]+)` \| .+ \|$", TEXT, re.MULTILINE
)

pytestmark = pytest.mark.skipif(not TEXT, reason="the docs are not here")


def test_there_are_ten_stops():
    assert [int(number) for number, _, _ in STOPS] == list(range(1, 11))


@pytest.mark.parametrize(("path", "name"), [stop[1:] for stop in STOPS])
def test_the_stop_is_there(path, name):
    module = importlib.import_module(
        "sparse_argdiff." + path.removesuffix(".py").replace("/", ".")
    )
    found = module
    for part in name.split("."):
        found = getattr(found, part)


def test_files_named_in_the_text_are_there():
    for path in re.findall(r"`([\w/]+\.py)`", TEXT):
        assert (PACKAGE / path).is_file(), path


def test_one_call_enters_few_files():
    """Of one adjoint and one evaluation, as ``benchmarks/files_entered.py`` counts them."""
    suite = PACKAGE.parent / "benchmarks"
    if not (suite / "files_entered.py").is_file():
        pytest.skip("the benchmarks are not here")
    sys.path.insert(0, str(suite))
    try:
        count = importlib.import_module("files_entered")
    finally:
        sys.path.remove(str(suite))
    assert len(count.adjoint_frames()) <= 16
    assert len(count.evaluation_frames(certify=False)) <= 22
    assert len(count.evaluation_frames(certify=True)) <= 22
    assert sum(count.heart().values()) <= 1120
