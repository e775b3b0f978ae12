"""docs/batches.md: its blocks run one after another, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_page_runs(capsys):
    """docs/batches.md, its blocks one after another, with what they print."""
    text = (Path(__file__).parents[1] / "docs" / "batches.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 4
    scope = {}
    for block in blocks:
        exec(block, scope)  # noqa: S102
    printed = capsys.readouterr().out
    for line in re.findall(r"^# (.*)$", text.partition("```python")[2], re.MULTILINE):
        if line.startswith(
            ("ActiveRange", "stationarity", "activity", "derivative", "proven")
        ):
            assert line in printed
