"""The page on quadratic programs runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "quadratic_programs.md"


def test_the_page_runs():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, names)  # noqa: S102
    np.testing.assert_allclose(names["gradient"], [-1.0, 0.0])
    np.testing.assert_allclose(names["same"], names["gradient"])
    found = names["by_name"]
    assert found["P"].shape == (2, 2)
    assert found["upper"].shape == (2,)
