"""The counts of the asv suite, held: products, iterations, passes, vectors, residuals.

Seconds depend on the machine, and nothing here reads a clock; what is counted is the same
everywhere, so that a change that costs more shows here and not in a plot.  A change that
costs less may lower the figures.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[1] / "benchmarks"


def suite(name):
    """Return a module of the suite, or skip where it was not shipped."""
    if not (SUITE / "benchmarks" / f"{name}.py").exists():
        pytest.skip("the benchmarks are not here")
    sys.path.insert(0, str(SUITE))
    try:
        return importlib.import_module(f"benchmarks.{name}")
    finally:
        sys.path.remove(str(SUITE))


# iterations, products, vectors of the workspace, passes an iteration, allocated vectors
KRYLOV = {
    ("cg", 100, "reference"): (306, 307, 2.0, 12.0, 4.6),
    ("cg", 100, "compiled"): (306, 307, 2.0, 10.0, 2.6),
    ("minres", 100, "reference"): (301, 302, 6.0, 14.0, 4.6),
    ("minres", 100, "compiled"): (301, 302, 6.0, 12.0, 2.6),
}


@pytest.mark.parametrize(("case", "most"), KRYLOV.items(), ids=str)
def test_a_krylov_solve_costs_no_more(case, most):
    if case[2] == "compiled":
        pytest.importorskip("numba")
    counts = suite("bench_krylov").Counts()
    counts.setup(*case)
    found = (
        counts.track_iterations(*case),
        counts.track_products(*case),
        counts.track_workspace_vectors(*case),
        counts.track_vector_passes_per_iteration(*case),
        counts.track_allocated_vectors_of_a_repeated_solve(*case),
    )
    assert all(f <= m for f, m in zip(found, most, strict=True)), found
    assert found[1] == found[0] + 1
    assert counts.track_true_relative_residual(*case) <= 1e-8


@pytest.mark.parametrize("side", [64, 256])
def test_multigrid_takes_no_more_cycles(side):
    pytest.importorskip("pyamg")
    grid = suite("bench_preconditioners").Multigrid()
    grid.setup(side)
    assert grid.track_iterations(side) <= 6


def test_auto_takes_no_more_products_over_a_sequence():
    module = suite("bench_preconditioners")
    spent = {}
    for name in ("none", "auto"):
        sequence = module.Sequence()
        sequence.setup(name, "text-like")
        spent[name] = sequence.track_products(name, "text-like")
    assert spent["none"] <= 1850  # tol is the error of y itself
    assert spent["auto"] <= 1.05 * spent["none"]


def test_a_gram_product_allocates_no_more():
    pytest.importorskip("numba")
    costs = suite("bench_gram").Costs()
    costs.setup()
    assert costs.track_bytes_allocated_by_a_product() <= 4096
    assert costs.track_difference_from_the_reference() <= 1e-13
    assert costs.track_difference_among_threads() <= 1e-13


@pytest.mark.parametrize(("tol", "most"), [(1e-1, 24), (1e-3, 66), (1e-6, 95)])
def test_a_certificate_and_a_descent_take_no_more_products(tol, most):
    certificates = suite("bench_bilevel").Certificates()
    certificates.setup(tol)
    assert certificates.track_products_until_descent(tol) <= most
