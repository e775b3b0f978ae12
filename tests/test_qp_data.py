"""The Maros-Meszaros QPs and a portfolio frontier, where their data is: slow."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import sparse_argdiff as sad

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "qp_report.py"
NAMES = [
    "AUG3D",
    "AUG3DC",
    "CONT-050",
    "CVXQP1_M",
    "CVXQP1_S",
    "CVXQP2_M",
    "CVXQP2_S",
    "CVXQP3_M",
    "CVXQP3_S",
    "DPKLO1",
    "DTOC3",
    "DUAL1",
    "DUAL2",
    "DUAL3",
    "DUAL4",
    "GENHS28",
    "HS118",
    "HS21",
    "HS35",
    "HS51",
    "HS52",
    "HS53",
    "HS76",
    "KSIP",
    "LASER",
    "LISWET1",
    "MOSARQP1",
    "PRIMAL1",
    "QAFIRO",
    "QPTEST",
    "STCQP1",
    "TAME",
    "YAO",
    "ZECEVIC2",
]
NOT_UNIQUE = {"AUG3D", "QAFIRO"}  # H is singular on the null space of the active rows


@pytest.fixture(scope="module")
def qp():
    spec = importlib.util.spec_from_file_location("qp_report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def folder(request, name):
    path = Path(request.config.getoption("--data")) / name
    if not path.is_dir():
        pytest.skip(f"no {path}: give --data")
    return path


@pytest.mark.parametrize("method", [None, "barrier"])
@pytest.mark.parametrize("name", NAMES)
def test_solved(qp, request, name, method):
    data = qp.Data(folder(request, "qp_maros_meszaros") / f"{name}.mat")
    if method == "barrier" and not (data.single.size or data.above.size):
        pytest.skip("nothing to be inside of")
    sol = sad.solve(data.problem(), data.q, method=method, tol=1e-9)
    # The path ends within the gap of every side, of which there are thousands.
    assert data.residual(sol) <= (1e-6 if method is None else 1e-3)
    peer = data.clarabel(data.q)
    if peer is not None:
        assert sol.value == pytest.approx(peer.obj_val, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_adjoint(qp, request, name):
    data = qp.Data(folder(request, "qp_maros_meszaros") / f"{name}.mat")
    problem = data.problem()
    sol = sad.solve(problem, data.q, tol=1e-9)
    v = np.random.default_rng(0).standard_normal(data.q.size)
    if name in NOT_UNIQUE:
        with pytest.raises(sad.ConvergenceError, match="SINGULAR"):
            sad.vjp(problem, sol, v, rtol=1e-10, maxiter=50_000)
        return
    expected, reason = qp.direct_adjoint(data, problem, sol, v)
    assert expected is not None, reason
    found = sad.vjp(problem, sol, v, rtol=1e-10, maxiter=50_000).x
    error = np.linalg.norm(found - expected)
    assert error <= 1e-6 * np.linalg.norm(expected)


def test_frontier(qp, request):
    found = qp.frontier(folder(request, "portfolio_orlib"), 1)
    assert found.worst <= 1e-6
    assert found.slope_error <= 1e-5
    assert found.refused <= 1  # the end, where one asset is left
