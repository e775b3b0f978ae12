"""docs/penalties_and_folds.md: its blocks run one after another, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_page_runs(capsys):
    page = Path(__file__).parents[1] / "docs" / "penalties_and_folds.md"
    text = page.read_text("utf-8")
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)  # noqa: S102
    told = "".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    assert told
    assert capsys.readouterr().out == told
