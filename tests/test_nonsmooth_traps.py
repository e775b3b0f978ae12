"""The situations of public trackers in which non-smooth solvers went wrong, row by row.

``ROWS`` names for each row of the list the tests that guard it.  Tests of rows that no other
file has are here, and the troubles after which a gradient of zero would be a lie.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm

PENALTIES, NORMS, VECTORS = (
    f"test_{name}.py" for name in ("penalties", "norms", "support_vector")
)
HERE = Path(__file__).name
ROWS = {
    1: {PENALTIES: ["test_zero_weights_are_free"], NORMS: ["test_zero_weights_are_projected"]},
    2: {PENALTIES: ["test_infinite_weights_are_out"], NORMS: ["test_infinite_weights_in_folds"]},
    3: {PENALTIES: ["test_the_formula_of_the_derivative_by_log_weights", "test_duplicated_columns"]},
    4: {PENALTIES: ["test_weights_over_four_decades"], NORMS: ["test_paths_next_to_interpolation"]},
    5: {PENALTIES: ["test_infinite_weights_are_out"]},
    6: {PENALTIES: ["test_targets_of_zero"]},
    7: {PENALTIES: ["test_units", "test_single_precision_ends_at_its_rounding"]},
    8: {PENALTIES: ["test_elastic_net_is_a_lasso_with_rows"], NORMS: ["test_the_gap_bounds_the_distance_to_the_least_value"]},
    9: {HERE: ["test_a_net_without_its_first_part_is_ridge"]},
    10: {PENALTIES: ["test_a_cold_solve_equals_the_end_of_a_path"], NORMS: ["test_what_the_gap_proves_is_true_at_convergence"]},
    11: {PENALTIES: ["test_columns_of_zeros"]},
    12: {PENALTIES: ["test_duplicated_columns"], "test_norms_by_scipy.py": ["test_duplicates_are_refused_or_told"]},
    13: {NORMS: ["test_paths_next_to_interpolation", "test_weights_that_rounding_hides_have_a_gap"]},
    14: {NORMS: ["test_sparse_equals_dense"]},
    15: {PENALTIES: ["test_at_the_largest_weight"], NORMS: ["test_the_largest_weight_knows_the_intercept"]},
    16: {HERE: ["test_a_gram_matrix_gives_what_its_columns_give"]},
    17: {NORMS: ["test_weights_of_samples"]},
    18: {HERE: ["test_weights_are_used_as_given"]},
    19: {PENALTIES: ["test_sparse_group_by_hand"]},
    20: {PENALTIES: ["test_a_group_is_out_exactly"]},
    21: {PENALTIES: ["test_groups_of_one_are_the_lasso"]},
    22: {PENALTIES: ["test_groups_in_any_order_and_numbering"]},
    23: {HERE: ["test_groups_that_overlap_are_named"]},
    24: {PENALTIES: ["test_adjoint_and_tangent_are_solved_in_the_size_of_the_support"]},
    25: {NORMS: ["test_derivatives_of_solutions_and_of_folds"], "test_norms_by_scipy.py": ["test_solution_and_derivative"]},
    26: {PENALTIES: ["test_zeros_are_exact_and_do_not_flicker"]},
    27: {VECTORS: ["test_samples_of_weight_zero_do_not_count", "test_wrong_arguments"]},
    28: {VECTORS: ["test_a_tube_that_holds_all_samples_has_no_intercept_of_its_own"]},
    29: {VECTORS: ["test_two_points"]},
    30: {VECTORS: ["test_hinge_is_that_of_svc", "test_squared_hinge_is_that_of_linear_svc", "test_costs_that_vanish_or_overflow"]},
    31: {VECTORS: ["test_the_order_of_the_samples_does_not_matter"]},
    32: {VECTORS: ["test_units_of_the_kernel"]},
    33: {PENALTIES: ["test_memory_order_and_read_only_arrays"], NORMS: ["test_compiled_blocks_are_those_of_dense_columns"]},
    34: {VECTORS: ["test_a_kernel_with_a_negative_eigenvalue"]},
}  # fmt: skip

RNG = np.random.default_rng(3)
F = RNG.standard_normal((40, 8))
T = F[:, :3] @ np.array([1.0, -1.0, 0.5]) + 0.3 * RNG.standard_normal(40)


def functions(file):
    tree = ast.parse((Path(__file__).parent / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_has_tests():
    assert list(ROWS) == list(range(1, 35))
    for row, files in ROWS.items():
        for file, names in files.items():
            assert set(names) <= functions(file), f"row {row}"


def test_a_net_without_its_first_part_is_ridge():
    """Row 9: the same door, all coefficients in use, no warning and no division by zero."""
    glm = Glm(
        F, T, loss="squared", norm="elastic-net", l1_ratio=0.0, penalty="scalar",
        intercept=False,
    )  # fmt: skip
    problem, x = sad.Problem(glm), np.log([0.3])
    solution = sad.solve(problem, x, tol=1e-11)
    K = F.T @ F / 40 + 0.3 * np.eye(8)
    wanted = np.linalg.solve(K, F.T @ T / 40)
    assert solution.y == pytest.approx(wanted, rel=1e-10)
    assert solution.warnings == ()
    found = sad.jvp(problem, solution, np.ones(1)).y
    assert found == pytest.approx(np.linalg.solve(K, -0.3 * wanted), rel=1e-9)


def test_a_gram_matrix_gives_what_its_columns_give():
    """Row 16."""
    G, c = F.T @ F / 40, F.T @ T / 40
    gram = sad.FunctionObjective(
        value=lambda x, y: 0.5 * y @ G @ y - c @ y, grad=lambda x, y: G @ y - c,
        hvp=lambda x, y, v: G @ v, hess_diag=lambda x, y: np.diag(G).copy(),
        cross_jvp=lambda x, y, u: 0.0 * y, cross_vjp=lambda x, y, w: 0.0 * x, n=8,
    )  # fmt: skip
    x = np.log([0.1])
    problem = sad.Problem(gram, penalty=sad.L1())
    glm = Glm(F, T, loss="squared", norm="l1", penalty="scalar", intercept=False)
    a, b = (sad.solve(p, x, tol=1e-11) for p in (problem, sad.Problem(glm)))
    assert a.y == pytest.approx(b.y, abs=1e-9)
    assert ((a.y != 0.0) == (b.y != 0.0)).all()


def test_weights_are_used_as_given():
    """Row 18: (c w, α) is (w, c α); nothing is rescaled to a mean of one."""
    w = np.linspace(0.02, 0.3, 8)
    glm = Glm(F, T, loss="squared", norm="l1", penalty="scalar", intercept=False)
    learned = sad.L1(
        lambda x: np.exp(x[0]) * w,
        weights_jvp=lambda x, u: np.exp(x[0]) * w * u[0],
        weights_vjp=lambda x, v: np.array([np.exp(x[0]) * w @ v]),
    )
    found = sad.solve(sad.Problem(glm, penalty=learned), np.log([2.0]), tol=1e-11)
    twice = sad.Problem(glm, penalty=sad.L1(2.0 * w))
    fixed = sad.solve(twice, np.zeros(1), tol=1e-11)
    assert found.y == pytest.approx(fixed.y, abs=1e-10)


def test_groups_that_overlap_are_named():
    """Row 23."""
    with pytest.raises(
        ValueError, match=r"groups\[0\].*groups\[2\]|groups\[2\].*groups\[0\]"
    ):
        sad.GroupL1([[0, 1], [2, 3], [1, 4]])


# Trouble: a failure is never a gradient of zero.


def upper_of(glm):
    return glm.held_out(F[:15], T[:15])


@pytest.mark.parametrize("norm", ["l1", "elastic-net", "group-l1"])
class TestTrouble:
    def model(self, norm, features=F, penalty="scalar"):
        options = {"groups": np.arange(8) // 2} if norm == "group-l1" else {}
        return Glm(
            features, T, loss="squared", norm=norm, penalty=penalty, intercept=False,
            **options,
        )  # fmt: skip

    def test_a_solve_that_stops_early(self, norm):
        glm = self.model(norm)

        def stopped(problem, x, y0, tol):
            found = sad.solve(
                problem, x, y0=y0, tol=tol, maxiter=0, on_failure="ignore"
            )
            assert not found.status.acceptable
            return found

        H = sad.Hypergradient(sad.Problem(glm), upper_of(glm), solver=stopped)
        with pytest.raises(sad.ConvergenceError):
            H(np.full(glm.m, -2.0))

    def test_not_a_number_in_x(self, norm):
        glm = self.model(norm)
        H = sad.Hypergradient(sad.Problem(glm), upper_of(glm))
        with pytest.raises((ValueError, sad.ConvergenceError)):
            H(np.full(glm.m, math.nan))

    def test_not_a_number_in_the_upper_gradient(self, norm):
        glm = self.model(norm)
        upper = sad.FunctionUpper(
            lambda x, y: float(y @ y), lambda x, y: np.full(8, math.nan)
        )
        H = sad.Hypergradient(sad.Problem(glm), upper)
        with pytest.raises((ValueError, sad.ConvergenceError)):
            H(np.full(glm.m, -2.0))

    def test_copies_in_the_support(self, norm):
        """Copies in one group, or alone: nothing is unique but their sum, and that is told."""
        glm = self.model(norm, F[:, [0, 0, 1, 2, 3, 4, 5, 6]])
        problem, x = sad.Problem(glm), np.full(glm.m, -3.0)
        solution = sad.solve(problem, x, on_failure="ignore")
        if norm == "l1":
            assert solution.support == "not settled"
            return
        assert solution.y[0] == pytest.approx(solution.y[1], rel=1e-6)
        assert np.abs(sad.jvp(problem, solution, np.ones(glm.m)).y).max() > 1e-3

    def test_a_column_of_zeros_changes_nothing(self, norm):
        features = np.c_[F[:, :6], np.zeros((40, 2))]
        b = self.model(norm, features)
        without = Glm(
            F[:, :6], T, loss="squared", norm=norm, penalty="scalar", intercept=False,
            **({"groups": np.arange(6) // 2} if norm == "group-l1" else {}),
        )  # fmt: skip
        x = np.full(b.m, -2.0)
        found = []
        for glm, held_out in ((b, features[:15]), (without, F[:15, :6])):
            upper = glm.held_out(held_out, T[:15])
            found.append(sad.Hypergradient(sad.Problem(glm), upper)(x))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
        assert found[0][1] == pytest.approx(found[1][1], rel=1e-7)
        assert np.abs(found[0][1]).max() > 1e-6

    def test_infinite_weights(self, norm):
        glm = self.model(norm, penalty="per-feature")
        x = np.full(glm.m, -2.0)
        x[0] = math.inf
        H = sad.Hypergradient(sad.Problem(glm), upper_of(glm))
        with pytest.warns(sad.ConvergenceWarning, match="infinite weight"):
            value, gradient = H(x)
        assert math.isfinite(value)
        assert gradient[0] == 0.0
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[1:]).max() > 1e-6

    def test_an_empty_support_is_a_true_zero(self, norm):
        glm = self.model(norm)
        H = sad.Hypergradient(sad.Problem(glm), upper_of(glm))
        x = np.full(glm.m, 5.0)
        value, gradient = H(x)
        assert not gradient.any()
        assert H(x + 0.1)[0] == value

    def test_a_weak_coefficient_is_told(self, norm):
        glm = self.model(norm)
        own = glm.grad(np.zeros(glm.m), np.zeros(8))
        top = np.abs(own).max()
        if norm == "group-l1":
            pairs = np.sqrt((own.reshape(4, 2) ** 2).sum(axis=1) / 2.0)
            top = pairs.max()
        solution = sad.solve(sad.Problem(glm), np.full(glm.m, math.log(top)))
        assert solution.support == "not settled"
        with pytest.warns(sad.ConvergenceWarning, match="one-sided|weakly|kink"):
            sad.derivative(sad.Problem(glm), solution)
