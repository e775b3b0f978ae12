"""docs/penalties.md: its code runs, and its penalties have the derivatives they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import sparse_argdiff as sad

PAGE = Path(sad.__file__).parents[1] / "docs" / "penalties.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not here")


@pytest.fixture(scope="module")
def names():
    found: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, found)  # noqa: S102  (our own page)
    return found


@pytest.mark.parametrize("name", ["lasso", "mcp", "scad", "groups"])
def test_derivatives_of_the_page(names, name):
    problem = names[name]
    x = np.log([0.1, 0.05]) if name == "groups" else np.log([0.15])
    solution = sad.solve(problem, x, tol=1e-10)
    assert 0 < (solution.y != 0.0).sum() < 30
    assert solution.support == "estimated"
    v = np.cos(np.arange(30.0))
    found = sad.vjp(problem, solution, v).x
    for i in range(x.shape[0]):
        e = 1e-5 * np.eye(x.shape[0])[i]
        up, down = (
            v @ sad.solve(problem, x + s * e, y0=solution.y, tol=1e-12).y
            for s in (1.0, -1.0)
        )
        assert found[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-8)


def test_the_proximal_points_of_the_page_are_minima(names):
    rng = np.random.default_rng(0)
    for make, x in (
        (lambda: names["Mcp"](4.0), np.zeros(1)),
        (lambda: names["Scad"](3.7), np.zeros(1)),
        (lambda: names["SparseGroup"](np.arange(6) // 3), np.zeros(2)),
    ):
        penalty = make()
        for _ in range(20):
            v, t = 3.0 * rng.standard_normal(6), 0.5
            y = penalty.prox(x, v, np.full(6, t))

            def value(z, v=v, t=t, penalty=penalty, x=x):
                return penalty.value(x, z) + ((z - v) ** 2).sum() / (2.0 * t)

            for size in (1e-3, 1e-1, 1.0):
                assert value(y) <= value(y + size * rng.standard_normal(6)) + 1e-12
