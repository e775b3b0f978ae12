"""Public doors: what no array of ours is refused by name, and records are readable.

A mask that is dropped, a table that loses its labels or a function that writes into an
array of the package would be silent wrong answers; NumPy's own errors name no argument.
"""

import dataclasses
import traceback
import types

import numpy as np
import pytest
import scipy.sparse

import sparse_argdiff as sad
from sparse_argdiff import preconditioners
from sparse_argdiff.linear_model import Glm, HeldOutLoss

RNG = np.random.default_rng(0)
N, M = 4, 3
Q = np.eye(N) + np.cov(RNG.standard_normal((N, 9)))
B, C = RNG.standard_normal((N, M)), RNG.standard_normal((2, N))
X, V = np.ones(M), np.linspace(1.0, 2.0, N)
F = RNG.standard_normal((20, 5))
T = (np.arange(20) % 2) * 1.0


def functions(**changed):
    given = {
        "value": lambda x, y: 0.5 * y @ Q @ y - y @ B @ x,
        "grad": lambda x, y: Q @ y - B @ x,
        "hvp": lambda x, y, v: Q @ v,
        "cross_jvp": lambda x, y, u: -B @ u,
        "cross_vjp": lambda x, y, w: -B.T @ w,
        "n": N,
    }
    return given | changed


OBJECTIVE = sad.FunctionObjective(**functions())
PROBLEM = sad.Problem(OBJECTIVE)
SOLUTION = sad.solve(PROBLEM, X)
UPPER = sad.FunctionUpper(lambda x, y: 0.5 * y @ y, lambda x, y: y)
GLM = Glm(F, T)


# what is no array ---------------------------------------------------------------------


class Table:
    """A data frame, to the eye of one who meets it without its library."""

    def __init__(self, entries):
        self.entries = np.asarray(entries)
        self.shape, self.ndim = self.entries.shape, self.entries.ndim
        self.dtype = self.entries.dtype

    def to_numpy(self):
        return self.entries

    def __array__(self, dtype=None, copy=None):
        return self.entries

    def __matmul__(self, other):
        return self.entries @ other


class Tensor(Table):
    """A tensor of PyTorch: it has ``@``, a shape and DLPack, and is no array."""

    to_numpy = property()

    def __dlpack__(self, **options):
        return self.entries.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.entries.__dlpack_device__()


class JaxArray(Tensor):
    """An array that has a namespace, and cannot be written into."""

    def __array_namespace__(self, api_version=None):
        return types.ModuleType("jax.numpy")


def masked(entries):
    hidden = np.zeros(np.shape(entries), bool)
    hidden.flat[0] = True
    return np.ma.masked_array(np.array(entries, float), hidden)


FOREIGN = {
    "masked": (masked, "MaskedArray; fill its masked entries"),
    "table": (Table, r"Table; pass its \.to_numpy"),
    "tensor": (Tensor, r"Tensor; pass sparse_argdiff\.from_dlpack"),
    "jax": (JaxArray, r"JaxArray; pass sparse_argdiff\.from_dlpack"),
    "matrix": (np.matrix, r"matrix; pass numpy\.asarray"),
    "half": (lambda a: np.asarray(a, np.float16), "float16"),
    "complex": (lambda a: np.asarray(a) + 1j, "complex128"),
    "object": (lambda a: np.asarray(a, object), "object"),
    "text": (lambda a: np.asarray(a).astype(str), "<U"),
    "dict": (lambda a: {}, "dict"),
}


def problem_of(name, result):
    """Return the problem with a function that returns that."""
    changed = {name: lambda *_: result}
    if name in {"fun", "jac"}:
        row = {"fun": lambda x, y: C @ y - 1.0, "jac": lambda x, y: C} | changed
        return sad.Problem(OBJECTIVE, equality=sad.Equality(**row))
    return sad.Problem(sad.FunctionObjective(**functions(**changed)))


def upper_of(name, result):
    given = {"value": UPPER.value, "grad_y": UPPER.grad_y, "grad_x": lambda x, y: 0 * x}
    return sad.Hypergradient(
        PROBLEM, sad.FunctionUpper(**(given | {name: lambda x, y: result}))
    )


# Argument: (the door's name for it, a right value, the call).
DOORS = {
    "solve: x": ("x", X, lambda a: sad.solve(PROBLEM, a)),
    "solve: y0": ("y0", V, lambda a: sad.solve(PROBLEM, X, a)),
    "vjp: v": ("v", V, lambda a: sad.vjp(PROBLEM, SOLUTION, a)),
    "vjp: adjoint0": (
        "adjoint0",
        V,
        lambda a: sad.vjp(PROBLEM, SOLUTION, V, adjoint0=a),
    ),
    "jvp: u": ("u", X, lambda a: sad.jvp(PROBLEM, SOLUTION, a)),
    "Solution: y": ("y", V, lambda a: sad.Solution(y=a, x=X)),
    "Solution: x": ("x", X, lambda a: sad.Solution(y=V, x=a)),
    "Solution: multipliers": (
        "multipliers",
        X,
        lambda a: sad.Solution(y=V, x=X, multipliers=a),
    ),
    "cg: A": ("A", Q, lambda a: sad.cg(a, V)),
    "cg: b": ("b", V, lambda a: sad.cg(Q, a)),
    "cg: x0": ("x0", V, lambda a: sad.cg(Q, V, a)),
    "cg: M": ("M", np.eye(N), lambda a: sad.cg(Q, V, M=a)),
    "minres: A": ("A", Q, lambda a: sad.minres(a, V)),
    "projected_cg: H": ("H", Q, lambda a: sad.projected_cg(a, C, V)),
    "projected_cg: C": ("C", C, lambda a: sad.projected_cg(Q, a, V)),
    "projected_cg: b": ("b", V, lambda a: sad.projected_cg(Q, C, a)),
    "projected_cg: c": ("c", X[:2], lambda a: sad.projected_cg(Q, C, V, a)),
    "LinearEquality: A": ("A", C, lambda a: sad.LinearEquality(a, X[:2])),
    "LinearEquality: b": ("b", X[:2], lambda a: sad.LinearEquality(C, a)),
    "Problem: lower": ("lower", -V, lambda a: sad.Problem(OBJECTIVE, lower=a)),
    "Problem: upper": ("upper", V, lambda a: sad.Problem(OBJECTIVE, upper=a)),
    "Glm: features": ("features", F, lambda a: Glm(a, T)),
    "Glm: targets": ("targets", T, lambda a: Glm(F, a)),
    "Glm: classes": ("targets", T, lambda a: Glm(F, a, loss="multinomial")),
    "Glm: sample_weight": (
        "sample_weight",
        np.ones(20),
        lambda a: Glm(F, T, sample_weight=a),
    ),
    "Glm: groups": (
        "groups",
        np.arange(5),
        lambda a: Glm(F, T, penalty="per-group", groups=a),
    ),
    "held_out: features": ("features", F, lambda a: GLM.held_out(a, T)),
    "held_out: targets": ("targets", T, lambda a: GLM.held_out(F, a)),
    "HeldOutLoss: sample_weight": (
        "sample_weight",
        np.ones(20),
        lambda a: HeldOutLoss(F, T, sample_weight=a),
    ),
    "predictor: features": ("features", F, lambda a: GLM.predictor(a, np.ones(6))),
    "predictor: y": ("y", np.ones(6), lambda a: GLM.predictor(F, a)),
    "Glm.value: x": ("x", np.ones(5), lambda a: GLM.value(a, np.ones(6))),
    "Glm.value: y": ("y", np.ones(6), lambda a: GLM.value(np.ones(5), a)),
    "Glm.grad: y": ("y", np.ones(6), lambda a: GLM.grad(np.ones(5), a)),
    "Glm.hess: y": ("y", np.ones(6), lambda a: GLM.hess(np.ones(5), a)),
    "Glm.cross: y": ("y", np.ones(6), lambda a: GLM.cross(np.ones(5), a)),
    "Hypergradient: x": (
        "x",
        X,
        lambda a: sad.Hypergradient(PROBLEM, UPPER).evaluate(a, certify=False),
    ),
    "Hypergradient: y0": (
        "y0",
        V,
        lambda a: sad.Hypergradient(PROBLEM, UPPER, y0=a)(X),
    ),
    "minimize: x0": ("x0", X, lambda a: sad.minimize(PROBLEM, UPPER, a, maxiter=1)),
    "minimize: bounds": (
        "bounds: low",
        -X,
        lambda a: sad.minimize(PROBLEM, UPPER, X, bounds=(a, 2.0), maxiter=1),
    ),
    "check_derivatives: x": ("x", X, lambda a: sad.check_derivatives(OBJECTIVE, a, V)),
    "check_derivatives: y": ("y", V, lambda a: sad.check_derivatives(OBJECTIVE, X, a)),
    "jacobi": ("diag", V, preconditioners.jacobi),
    "cholesky": ("A", Q, preconditioners.cholesky),
    "constraint": ("H_diag", V, lambda a: preconditioners.constraint(a, C)),
    "grad": ("objective.grad", V, lambda a: sad.solve(problem_of("grad", a), X)),
    "hvp": ("hvp", V, lambda a: sad.vjp(problem_of("hvp", a), SOLUTION, V)),
    "cross_vjp": (
        "cross_vjp",
        X,
        lambda a: sad.vjp(problem_of("cross_vjp", a), SOLUTION, V),
    ),
    "cross_jvp": (
        "cross_jvp",
        V,
        lambda a: sad.jvp(problem_of("cross_jvp", a), SOLUTION, X),
    ),
    "fun": (
        r"equality\[0\]\.fun",
        X[:2],
        lambda a: sad.solve(problem_of("fun", a), X),
    ),
    "jac": (r"equality\[0\]\.jac", C, lambda a: sad.solve(problem_of("jac", a), X)),
    "grad_y": (r"upper\.grad_y", V, lambda a: upper_of("grad_y", a)(X)),
    "grad_x": (r"upper\.grad_x", X, lambda a: upper_of("grad_x", a)(X)),
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_array_is_refused_by_name(door, kind):
    name, right, call = DOORS[door]
    make, found = FOREIGN[kind]
    bad = make(right)
    if kind == "matrix" and getattr(right, "ndim", 0) == 1:
        found = ""  # a row: of a function's result the shape is what is named
    if door == "Glm: groups" and kind in {"half", "complex", "object", "text"}:
        found = "must be whole numbers"
    with pytest.raises((TypeError, ValueError), match=f"^{name}.*{found}") as caught:
        call(bad)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert "sparse_argdiff" in last.filename
    assert (last.line or "").lstrip().startswith("raise")


@pytest.mark.parametrize("door", DOORS)
def test_right_arguments_pass_these_doors(door):
    """A guard of the table: each call works with the right value."""
    name, right, call = DOORS[door]
    if name.startswith(("objective", "hvp", "cross", "equality")):
        return  # constants are no derivatives
    call(right)


@pytest.mark.parametrize(
    "bad", ["1.0", b"1.0", True, np.True_, np.ones(1), masked(np.ones(1))[0], None, 1j]
)
def test_values_that_are_no_numbers(bad):
    with pytest.raises(TypeError, match=r"^objective\.value must return a number"):
        sad.solve(problem_of("value", bad), X)
    with pytest.raises(TypeError, match=r"^upper\.value must return a number"):
        upper_of("value", bad)(X)


@pytest.mark.parametrize(
    "number", [1, np.float32(1.0), np.array(1.0), np.longdouble(1.0), np.int64(1)]
)
def test_values_that_are_numbers(number):
    assert upper_of("value", number).value(X) == 1.0


@pytest.mark.parametrize("name", ["hvp", "cross_vjp", "cross_jvp"])
@pytest.mark.parametrize("dtype", [int, bool])
def test_whole_numbers_are_no_derivative(name, dtype):
    size = M if name == "cross_vjp" else N
    problem = problem_of(name, np.ones(size, dtype))
    product = sad.jvp if name == "cross_jvp" else sad.vjp
    with pytest.raises(TypeError, match=f"^{name}'s result .*{np.dtype(dtype)}"):
        product(problem, SOLUTION, X if name == "cross_jvp" else V)


def test_an_operator_of_whole_numbers_is_one_of_whole_operands():
    A = sad.aslinearoperator(np.array([[2, 1], [1, 3]]))
    assert (A @ np.array([1, 1])).tolist() == [3, 4]
    assert (A @ np.array([0.5, 0.5])).tolist() == [1.5, 2.0]
    wrong = sad.LinearOperator((2, 2), lambda v: np.ones(2, int))
    with pytest.raises(TypeError, match=r"matvec must return real numbers.*int64"):
        wrong @ np.ones(2)


def test_a_right_hand_side_of_the_wrong_length():
    for b in (np.ones(1), np.ones(3), 1.0):
        rows = sad.LinearEquality(C, lambda x, b=b: b, b_vjp=lambda x, w: w)
        with pytest.raises(ValueError, match=r"^b must return an array of shape"):
            sad.solve(sad.Problem(OBJECTIVE, equality=rows), X)
    with pytest.raises(ValueError, match="b must be finite, found nan in row 1"):
        sad.LinearEquality(C, [1.0, np.nan])
    short = sad.LinearEquality(C, lambda x: x[:2], b_vjp=lambda x, w: w)
    problem = sad.Problem(OBJECTIVE, equality=short)
    with pytest.raises(ValueError, match=r"^b_vjp must return an array of shape"):
        sad.vjp(problem, sad.solve(problem, X), V)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"lower": np.zeros(3)}, r"lower must be a number or have shape \(4,\)"),
        ({"upper": np.zeros((4, 1))}, r"upper must be a number or have shape \(4,\)"),
        ({"lower": np.nan}, "without NaN"),
        ({"upper": [1.0, np.nan, 1.0, 1.0]}, "without NaN"),
        ({"lower": 1.0, "upper": V - 1.0}, "lower must be <= upper"),
    ],
)
def test_bounds_are_checked_when_the_problem_is_built(bounds, message):
    with pytest.raises(ValueError, match=message):
        sad.Problem(OBJECTIVE, **bounds)


def test_lists_and_whole_numbers_are_bounds():
    problem = sad.Problem(OBJECTIVE, lower=[0, 0, 0, 0], upper=1)
    assert np.all(sad.solve(problem, X).y >= 0.0)


def test_influence_takes_an_evaluation():
    problem, held = sad.Problem(GLM), GLM.held_out(F, T)
    F_of = sad.Hypergradient(problem, held)
    x = np.zeros(5)
    for wrong in (F_of(x), sad.minimize(problem, held, x, maxiter=1)):
        with pytest.raises(TypeError, match=r"result must be .*F\.evaluate"):
            sad.influence(problem, wrong)


def test_minimize_lists_all_its_options():
    with pytest.raises(TypeError, match="no option 'verbose'") as caught:
        sad.minimize(PROBLEM, UPPER, X, verbose=True)
    for option in (
        "progress",
        "bounds",
        "tol",
        "callback",
        "checkpoint",
        "adjoint_tol",
    ):
        assert f" {option}" in str(caught.value)


@pytest.mark.parametrize("name", ["value", "grad_y", "grad_x"])
def test_functions_of_the_upper_level_must_be_callable(name):
    given = {"value": UPPER.value, "grad_y": UPPER.grad_y, name: 1.0}
    with pytest.raises(TypeError, match=f"^{name} must be callable"):
        sad.FunctionUpper(**given)


# whose arrays they are ----------------------------------------------------------------


def test_functions_may_write_into_what_they_are_given():
    def spoiling(function):
        def spoilt(*arrays):
            result = np.array(function(*arrays))
            for array in arrays[:2]:
                array[...] = np.nan
            return result

        return spoilt

    given = {
        name: spoiling(function) if name not in {"n", "hvp"} else function
        for name, function in functions().items()
    }
    # A product has the same x and y each time; its operand is the solver's.
    objective = sad.FunctionObjective(
        **(given | {"cross_jvp": functions()["cross_jvp"]})
    )
    row = sad.Inequality(
        spoiling(lambda x, y: C @ y - x[:2]),
        spoiling(lambda x, y: C),
        jac_x=spoiling(lambda x, y: -np.eye(2, M)),
    )
    for constraints in ({}, {"lower": 0.1}, {"inequality": row}):
        plain = sad.Problem(OBJECTIVE, **constraints)
        found = sad.solve(sad.Problem(objective, **constraints), X)
        expected = sad.solve(plain, X)
        np.testing.assert_allclose(found.y, expected.y, rtol=1e-12)
    upper = sad.FunctionUpper(
        spoiling(UPPER.value), spoiling(UPPER.grad_y), spoiling(lambda x, y: 0.1 * x)
    )
    expected = sad.Hypergradient(
        PROBLEM, sad.FunctionUpper(UPPER.value, UPPER.grad_y, lambda x, y: 0.1 * x)
    )
    F_of, x = sad.Hypergradient(PROBLEM, upper), X.copy()
    found = F_of.evaluate(x)
    np.testing.assert_array_equal(found.gradient, expected.evaluate(X).gradient)
    np.testing.assert_array_equal(found.solution.y, SOLUTION.y)
    np.testing.assert_array_equal(x, X)


class Spoiling:
    """An upper objective whose functions write into all that they are given."""

    def __init__(self, inner, names):
        self.inner, self.names = inner, names

    def __getattr__(self, name):
        function = getattr(self.inner, name)
        if name not in self.names:
            return function

        def spoilt(*arrays):
            result = function(*arrays)
            for array in arrays:
                array[...] = 0.5 * array - 0.1
            return result

        return spoilt


class _Upper:
    """½ ‖y‖² + 0.05 ‖x‖², with all that an upper objective may know."""

    value = staticmethod(lambda x, y: UPPER.value(x, y) + 0.05 * x @ x)
    grad_y = staticmethod(lambda x, y: np.array(UPPER.grad_y(x, y)))
    grad_x = staticmethod(lambda x, y: 0.1 * x)
    curvature_scale = staticmethod(lambda x: np.full(x.shape, 0.1))
    lipschitz = staticmethod(lambda metric: float(1.0 / metric.min()))
    hess_product = staticmethod(lambda x, y, dx, dy: (0.1 * dx, 1.0 * dy))


_USES = {
    "evaluate": lambda F, glm, x: F.evaluate(x),
    "call": lambda F, glm, x: F(x),
    "minimize": lambda F, glm, x: sad.minimize(
        F.problem, F.upper, x, maxiter=3, on_failure="ignore"
    ),
    "hessp": lambda F, glm, x: (F.hessp(x, np.ones_like(x)),),
    "influence": lambda F, glm, x: (sad.influence(F.problem, F.evaluate(x)),),
}


@pytest.mark.parametrize("use", _USES)
@pytest.mark.parametrize("name", ["value", "grad_y", "grad_x", "rest", "part"])
def test_functions_of_the_upper_objective_may_write_into_what_they_are_given(use, name):
    """The proof gave ``grad_x`` y itself, and the parts of a sum shared one y."""
    glm = Glm(F, T, loss="squared", intercept=False)
    names = {
        "rest": ("curvature_scale", "lipschitz", "hess_product"),
        "part": ("value", "grad_y", "grad_x"),
    }.get(name, (name,))
    plain, x = _Upper(), np.linspace(-1.0, 0.5, glm.m)
    spoilt = Spoiling(plain, names)
    if name == "part":
        plain, spoilt = sad.Sum(plain, plain), sad.Sum(spoilt, spoilt)
    found, expected = (
        _USES[use](sad.Hypergradient(sad.Problem(glm), upper), glm, x)
        for upper in (spoilt, plain)
    )
    np.testing.assert_array_equal(x, np.linspace(-1.0, 0.5, glm.m))
    for one, other in zip(_numbers(found), _numbers(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["constants", "weight_slopes"])
def test_what_an_objective_knows_may_be_asked_twice(name):
    """``constants`` changed the y of the evaluation that it proves."""
    glm = Glm(F, T, loss="squared", intercept=False)
    x, found = np.linspace(-1.0, 0.5, glm.m), []
    for objective in (glm, Spoiling(glm, (name,))):
        problem = sad.Problem(objective)
        result = sad.Hypergradient(problem, _Upper()).evaluate(x)
        slopes = [sad.influence(problem, result) for _ in range(2)]
        found.append([*_numbers(result), *slopes])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def _numbers(found):
    """Return the numbers of a result: those of its fields, and of a solution in them."""
    parts = found if isinstance(found, tuple) else vars(found).values()
    inner = getattr(found, "solution", None)
    numbers = [p for p in parts if isinstance(p, float | np.ndarray)]
    return numbers if inner is None else [*numbers, inner.y, inner.x]


@pytest.mark.parametrize("which", ["x", "y"])
def test_products_of_an_own_operator_may_not_write_into_the_point(which):
    """The second J.T @ v was of another point than the first."""

    class Spoiling:
        n, hess = N, OBJECTIVE.hess
        value, grad = staticmethod(OBJECTIVE.value), staticmethod(OBJECTIVE.grad)

        def cross(self, x, y):
            def adjoint(w):
                result = OBJECTIVE.cross(x, y).T @ w
                kept = {"x": x, "y": y}[which]
                kept[...] = 0.5 * kept - 0.1
                return result

            return sad.LinearOperator((N, M), lambda u: np.zeros(N), adjoint)

    problem = sad.Problem(Spoiling())
    with pytest.raises(ValueError, match="read-only"):
        sad.vjp(problem, sad.solve(problem, X), np.ones(N))


def test_upper_gradients_may_share_a_buffer():
    n = M
    f = sad.FunctionObjective(
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )
    buffer = np.empty(n)
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float(y @ y + 4.0 * x @ x),
        lambda x, y: np.multiply(1.0, y, out=buffer),
        lambda x, y: np.multiply(4.0, x, out=buffer),
    )
    _, gradient = sad.Hypergradient(sad.Problem(f), upper)(X)
    np.testing.assert_allclose(gradient, 5.0 * X)


@pytest.mark.parametrize("brought", [True, False])
def test_a_derivative_keeps_none_of_the_callers_arrays(brought):
    s = np.array([1.0, 2.0, 3.0, 4.0])
    problem = sad.Problem(
        sad.FunctionObjective(
            grad=lambda x, y: Q @ y + s * y**3 - B @ x,
            hvp=lambda x, y, v: Q @ v + 3.0 * s * y**2 * v,
            cross_vjp=lambda x, y, w: -(B.T @ w) * (x / x),
            n=N,
        )
    )
    solution = sad.solve(problem, X)
    x, y = X.copy(), solution.y.copy()
    if brought:
        solution = sad.Solution(y=y, x=x)
    J = sad.derivative(problem, solution)
    before = J.T @ V
    y *= 3.0
    x *= np.nan
    if not brought:
        solution.y[...] *= 3.0
        solution.x[...] = np.nan
    np.testing.assert_array_equal(J.T @ V, before)
    if brought:
        np.testing.assert_array_equal(solution.x, X)
        np.testing.assert_array_equal(3.0 * solution.y, y)


# data of a linear model ---------------------------------------------------------------

KINDS = {
    "dense": np.asarray,
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_array,
    "coo": scipy.sparse.coo_array,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_placed(kind, bad):
    spoilt = F.copy()
    spoilt[7, 3] = bad
    features = KINDS[kind](spoilt)
    message = rf"features must be finite, found {bad} in row 7, column 3"
    for call in (
        lambda: Glm(features, T),
        lambda: GLM.held_out(features, T),
        lambda: GLM.predictor(features, np.ones(6)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_sums_that_overflow_are_no_infinite_features():
    Glm(1e308 * (np.abs(F) / np.abs(F).max()), T)
    Glm(np.full((20, 2), 1e38, np.float32), T)


def test_targets_and_weights_that_are_not_finite_are_placed():
    bad = np.where(np.arange(20) == 4, np.nan, 1.0)
    with pytest.raises(ValueError, match=r"targets must be finite, found nan in row 4"):
        Glm(F, bad)
    with pytest.raises(ValueError, match=r"sample_weight must be finite.* row 4"):
        Glm(F, T, sample_weight=bad)


@pytest.mark.parametrize("labels", [["no", "yes"] * 10, np.array(["a", "b"] * 10)])
@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
def test_labels_that_are_no_numbers_are_told_what_to_do(labels, loss):
    with pytest.raises(TypeError, match=r"targets must be real.*numpy\.unique"):
        Glm(F, labels, loss=loss)


@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        ([1, 2, 3, 1], 0),
        ([10, 20, 10, 20], 0),
        ([0, 1, 3, 1], 2),
        ([0, 0, 0, 0], 1),
        ([0, 2**40, 0, 0], 1),  # before an array of so many columns is made
    ],
)
@pytest.mark.parametrize("intercept", [True, False])
def test_each_class_must_have_a_sample(labels, missing, intercept):
    with pytest.raises(ValueError, match=rf"none of class {missing}\b.*numpy\.unique"):
        Glm(F[:4], np.array(labels), loss="multinomial", intercept=intercept)


EXTREME = {
    "all ones": ("logistic", np.ones(20), "1"),
    "all zeros": ("logistic", np.zeros(20), "0"),
    "all +1": ("logistic", np.ones(20, int), "1"),
    "all -1": ("logistic", -np.ones(20), "0"),
    "no counts": ("poisson", np.zeros(20), "0"),
    "a class without probability": (
        "multinomial",
        np.tile([0.4, 0.0, 0.6], (20, 1)),
        "0 for class 1",
    ),
}


@pytest.mark.parametrize("case", EXTREME)
def test_a_class_without_samples_beside_an_intercept(case):
    """The intercept would run to infinity: no minimum exists."""
    loss, targets, end = EXTREME[case]
    with pytest.raises(
        ValueError, match=rf"must not all be {end} where.*intercept=False"
    ):
        Glm(F, targets, loss=loss)
    glm = Glm(F, targets, loss=loss, intercept=False)
    assert sad.solve(sad.Problem(glm), np.zeros(5)).status is sad.Status.CONVERGED


def test_samples_of_weight_zero_are_no_samples_of_a_class():
    weights = np.where(T == 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="must not all be 0 where sample_weight > 0"):
        Glm(F, T, sample_weight=weights)
    held = GLM.held_out(F, np.ones(20))  # held-out data may be of one class
    assert held.value(None, np.zeros(6)) == pytest.approx(np.log(2.0))


def test_targets_within_the_range_have_a_minimum():
    for loss, targets in {
        "logistic": np.full(20, 0.25),
        "poisson": np.eye(20)[3],
        "squared": np.zeros(20),
        "huber": np.ones(20),
    }.items():
        solution = sad.solve(sad.Problem(Glm(F, targets, loss=loss)), np.zeros(5))
        assert solution.status is sad.Status.CONVERGED


@pytest.mark.parametrize("size", [1e4, 1e6, 1e200])
@pytest.mark.parametrize("kernels", ["reference", "compiled"])
@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize(
    "loss", ["squared", "logistic", "poisson", "huber", "multinomial"]
)
def test_samples_of_weight_zero_do_not_count(loss, kind, kernels, size):
    if kernels == "compiled":
        pytest.importorskip("numba")
        if kind == "dense":
            return
    t = np.arange(20) % 3 * 1.0 if loss in {"multinomial", "poisson"} else T
    weights, features = np.where(np.arange(20) < 4, 0.0, 1.0), F.copy()
    features[:4] = size
    targets = t.copy()
    if loss in {"squared", "huber"}:
        targets[:4] = size
    options = {"loss": loss, "penalty": "scalar", "kernels": kernels}
    glm = Glm(KINDS[kind](features), targets, sample_weight=weights, **options)
    without = Glm(KINDS[kind](F[4:]), t[4:], **options)
    x = np.array([-1.0])
    found, expected = (sad.solve(sad.Problem(g), x, tol=1e-10) for g in (glm, without))
    np.testing.assert_allclose(found.y, expected.y, rtol=1e-6, atol=1e-9)
    y = expected.y
    assert glm.value(x, y) == pytest.approx(without.value(x, y), rel=1e-14)
    H, K = glm.hess(x, y), without.hess(x, y)
    np.testing.assert_allclose(H.todense(), K.todense(), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(H.diagonal(), K.diagonal(), rtol=1e-12)
    known = glm.constants(x, y), without.constants(x, y)
    if known[1] is not None:
        assert known[0].hess_lipschitz == pytest.approx(known[1].hess_lipschitz)
    held = [
        HeldOutLoss(*d, loss=loss, outputs=3 if loss == "multinomial" else None)
        for d in ((F[4:], t[4:]),)
    ]
    assert np.isfinite(held[0].value(x, y))


def test_the_influence_of_a_sample_of_weight_zero_is_that_of_bringing_it_in():
    weights = np.where(np.arange(20) < 4, 0.0, 1.0)
    glm = Glm(F, T, sample_weight=weights)
    problem, held, x = sad.Problem(glm), glm.held_out(F, T), np.zeros(5)
    found = sad.influence(problem, sad.Hypergradient(problem, held).evaluate(x))
    h = 1e-4
    for i in (0, 7):
        moved = [
            sad.Hypergradient(
                sad.Problem(Glm(F, T, sample_weight=weights + s * np.eye(20)[i])), held
            ).value(x)
            for s in (0.0, h)
        ]
        assert found[i] == pytest.approx((moved[1] - moved[0]) / h, rel=1e-3, abs=1e-9)


def test_lists_are_arrays_for_a_model():
    x, y = [0.0] * 5, [0.1] * 6
    assert GLM.value(x, y) == GLM.value(np.array(x), np.array(y))
    np.testing.assert_array_equal(GLM.grad(x, y), GLM.grad(np.array(x), np.array(y)))
    assert GLM.predictor(F.tolist(), y).shape == (20,)
    for call in (
        lambda: GLM.predictor(F, y[:-1]),
        lambda: GLM.value(x, y[:-1]),
        lambda: GLM.cross(x, y[:-1]),
    ):
        with pytest.raises(ValueError, match=r"y must have shape \(6,\)"):
            call()


# seeds and starts ---------------------------------------------------------------------


def held_by_a_bound():
    """Return min ½|y − x|², y >= 0, at x = (1, −1): the second variable is at its bound."""
    f = sad.FunctionObjective(
        grad=lambda x, y: y - x,
        hvp=lambda x, y, v: 1.0 * v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=2,
    )
    problem = sad.Problem(f, lower=0.0)
    return problem, sad.solve(problem, np.array([1.0, -1.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("way", ["vjp", "jvp", "J @", "J.T @", "J @ columns"])
def test_a_seed_that_is_not_finite_is_told_wherever_it_is(way, place, bad):
    problem, solution = held_by_a_bound()
    seed = np.ones(2)
    seed[place] = bad

    def product(**options):
        if way in {"vjp", "jvp"}:
            found = getattr(sad, way)(problem, solution, seed, **options)
            return found.x if way == "vjp" else found.y
        J = sad.derivative(problem, solution, **options)
        if way == "J @ columns":
            return J @ np.stack([np.ones(2), seed], axis=1)
        return (J.T if way == "J.T @" else J) @ seed

    with pytest.raises(sad.ConvergenceError) as caught:
        product()
    assert caught.value.status is sad.Status.NOT_FINITE
    assert not np.all(np.isfinite(product(on_failure="ignore")))


def test_a_warm_start_that_has_left_a_barriers_domain():
    """Rows that move with x: the last y may violate them at the next x."""
    f = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - 2.0) @ (y - 2.0)),
        grad=lambda x, y: y - 2.0,
        hvp=lambda x, y, v: v,
        cross_vjp=lambda x, y, w: 0.0 * w,
        n=1,
    )
    rows = sad.Inequality(
        lambda x, y: y - x, lambda x, y: np.eye(1), jac_x=lambda x, y: -np.eye(1)
    )
    problem = sad.LogBarrier(sad.Problem(f, inequality=rows), 1e3)
    upper = sad.FunctionUpper(lambda x, y: 0.5 * float(y @ y), lambda x, y: y)
    cold, warm = (
        sad.Hypergradient(problem, upper, y0=np.zeros(1), warm_start=warm_start)
        for warm_start in (False, True)
    )
    for t in (1.0, 0.9, 0.95, 0.2):
        np.testing.assert_allclose(
            warm(np.array([t]))[1], cold(np.array([t]))[1], rtol=1e-5
        )
    for method in ("maid", "hoag", "gradient_descent", "lbfgs"):
        found = sad.minimize(
            problem,
            upper,
            np.array([1.0]),
            y0=np.zeros(1),
            bounds=(0.1, 2.0),
            method=method,
        )
        np.testing.assert_allclose(found.x, 0.1, rtol=1e-6)


# constraints --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, int])
def test_rows_of_lower_precision_beside_double(kind, dtype):
    rng = np.random.default_rng(0)
    n, p = 20, 6
    H, b, c = np.diag(np.arange(1.0, n + 1)), rng.standard_normal(n), rng.random(p)
    rows = np.asarray(4.0 * rng.standard_normal((p, n)), dtype)
    f = sad.FunctionObjective(
        grad=lambda x, y: H @ y - b * x, hvp=lambda x, y, v: H @ v, n=n
    )
    wide = rows.astype(float)
    K = np.block([[H, wide.T], [wide, np.zeros((p, p))]])
    expected = np.linalg.solve(K, np.concatenate([b, c]))[:n]
    plain = sad.projected_cg(H, KINDS[kind](rows), b, c, rtol=1e-10)
    np.testing.assert_allclose(plain.x, expected, rtol=1e-8, atol=1e-10)
    for constraint in (
        sad.LinearEquality(KINDS[kind](rows), c),
        sad.Equality(lambda x, y: rows @ y - c, lambda x, y: KINDS[kind](rows)),
    ):
        found = sad.solve(sad.Problem(f, equality=constraint), np.ones(1), tol=1e-10)
        np.testing.assert_allclose(found.y, expected, rtol=1e-8, atol=1e-10)


def circle(**parts):
    """Return ½|y − (2, 1)|² on y'y = x, or within, with some derivatives left out."""
    given = {
        "hess": lambda x, y, w: 2.0 * w[0] * np.eye(2),
        "jac_x": lambda x, y: -np.ones((1, 1)),
        "cross": lambda x, y, w: np.zeros((2, 1)),
    } | parts
    goal = np.array([2.0, 1.0])
    f = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float((y - goal) @ (y - goal)),
        grad=lambda x, y: y - goal,
        hvp=lambda x, y, v: v,
        cross_jvp=lambda x, y, u: np.zeros(2),
        cross_vjp=lambda x, y, w: np.zeros(1),
        n=2,
    )
    return f, (
        lambda x, y: np.array([y @ y - x[0]]),
        lambda x, y: 2.0 * y[None, :],
        given,
    )


@pytest.mark.parametrize("kind", [sad.Equality, sad.Inequality])
@pytest.mark.parametrize("forgotten", ["jac_x", "hess"])
def test_a_derivative_of_a_constraint_that_was_forgotten(kind, forgotten):
    """None stands for zero: for a function that does change it gave a wrong derivative."""
    f, (fun, jac, parts) = circle()
    name = kind.__name__.lower()
    x, full = np.array([1.0]), sad.Problem(f, **{name: kind(fun, jac, **parts)})
    solution = sad.solve(full, x, np.array([0.5, 0.4]))
    J = sad.derivative(full, solution)
    np.testing.assert_allclose(J @ x, 0.5 * solution.y, rtol=1e-6)
    less = sad.Problem(f, **{name: kind(fun, jac, **(parts | {forgotten: None}))})
    by = "y" if forgotten == "hess" else "x"
    message = rf"{name}\[0\]\..* changes with {by}.*{forgotten} is None"
    for call in (
        lambda: sad.derivative(less, solution),
        lambda: sad.vjp(less, solution, np.ones(2)),
        lambda: sad.jvp(less, solution, x),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    if kind is sad.Inequality and forgotten == "jac_x":
        barrier = sad.LogBarrier(less, 10.0)
        inside = sad.solve(barrier, x, np.array([0.1, 0.1]))
        with pytest.raises(ValueError, match=message):
            sad.derivative(barrier, inside)


def test_a_cross_derivative_of_a_constraint_that_was_forgotten():
    f, _ = circle()
    row = {
        "fun": lambda x, y: np.array([x[0] * y[0] + y[1] - 1.0]),
        "jac": lambda x, y: np.array([[x[0], 1.0]]),
        "jac_x": lambda x, y: np.array([[y[0]]]),
    }
    cross = {"cross": lambda x, y, w: np.array([[w[0]], [0.0]])}
    x = np.array([0.7])
    full = sad.Problem(f, equality=sad.Equality(**row, **cross))
    solution = sad.solve(full, x)
    sad.derivative(full, solution)
    with pytest.raises(ValueError, match=r"jac changes with x.*cross is None"):
        sad.derivative(sad.Problem(f, equality=sad.Equality(**row)), solution)


def test_what_is_zero_may_be_left_out():
    """Affine rows, rows that do not act, and a Jacobian by differences."""
    f, (fun, jac, parts) = circle()
    step = 1e-8

    def by_differences(x, y):
        here = np.array([np.sum(y) - 1.0])
        return np.stack(
            [(np.array([np.sum(y + step * e) - 1.0]) - here) / step for e in np.eye(2)],
            axis=1,
        )

    line = sad.Equality(lambda x, y: np.array([np.sum(y) - 1.0]), by_differences)
    problem = sad.Problem(f, equality=line)
    solution = sad.solve(problem, np.ones(1), tol=1e-6)
    sad.derivative(problem, solution)
    idle = sad.Inequality(fun, jac, **(parts | {"jac_x": None, "hess": None}))
    problem = sad.Problem(f, inequality=idle)
    J = sad.derivative(problem, sad.solve(problem, np.array([100.0])))
    np.testing.assert_allclose(J @ np.ones(1), 0.0, atol=1e-12)


# records ------------------------------------------------------------------------------


def records():
    problem, held = sad.Problem(GLM), GLM.held_out(F, T)
    found = sad.Hypergradient(problem, held).evaluate(np.zeros(5))
    long = sad.Solution(y=np.arange(1000.0), x=np.ones(300), multipliers=np.ones(900))
    f, (fun, jac, parts) = circle()
    constrained = sad.Problem(
        f,
        equality=[sad.LinearEquality(np.ones((1, 2)), [1.0])],
        inequality=sad.Inequality(fun, jac, **parts),
        lower=np.zeros(2),
    )
    return {
        "Problem of a Glm": problem,
        "Problem of functions": PROBLEM,
        "Problem with constraints": constrained,
        "LogBarrier": sad.LogBarrier(sad.Problem(f, lower=0.0), 10.0),
        "FunctionObjective": OBJECTIVE,
        "FunctionUpper": UPPER,
        "LinearEquality": constrained.equality[0],
        "Inequality": constrained.inequality,
        "Glm": GLM,
        "HeldOutLoss": held,
        "Solution": long,
        "ActiveSet": sad.ActiveSet(*(np.zeros(1000, bool) for _ in range(4))),
        "Adjoint": found.adjoint,
        "Tangent": sad.jvp(problem, found.solution, np.ones(5)),
        "Certificate": found.certificate,
        "HypergradientResult": found,
        "Constants": sad.Constants(1.0, 1.0, 1.0, 1.0, metric=np.ones(1000)),
        "BilevelResult": sad.minimize(problem, held, np.zeros(5), maxiter=3),
        "CheckReport": sad.check_derivatives(OBJECTIVE, X, V),
        "Hypergradient": sad.Hypergradient(problem, held),
        "KrylovResult": sad.cg(np.eye(1000), np.ones(1000)),
        "Structure": sad.Structure(matrix=np.ones((2, 2)), split=(Q, V)),
        "LinearOperator": sad.aslinearoperator(Q),
        "Auto": preconditioners.Auto(),
        "RecentSolutions": preconditioners.RecentSolutions(),
    }


RECORDS = records()


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_readable(name):
    text = repr(RECORDS[name])
    assert len(text.splitlines()) <= 5
    assert max(map(len, text.splitlines())) <= 100
    assert " object at 0x" not in text


def test_a_result_says_first_how_it_ended():
    text = repr(RECORDS["BilevelResult"])
    assert text.startswith("BilevelResult(status=ITERATION_LIMIT, success=False")
    assert "HistoryRecord(...)" in text
    assert "FunctionObjective(grad=" in repr(PROBLEM)
    assert "(1000,)" in repr(RECORDS["Solution"])


@pytest.mark.parametrize("name", RECORDS)
def test_records_compare_by_identity_and_have_a_hash(name):
    record = RECORDS[name]
    assert record == record  # noqa: PLR0124
    assert (record != record) is False  # noqa: PLR0124
    assert {record: name}[record] == name
    if dataclasses.is_dataclass(record):
        same = dataclasses.replace(record)
        assert (record == same) is False
        assert record in [same, record]


def test_a_derivative_becomes_an_array():
    J = sad.derivative(PROBLEM, SOLUTION, rtol=1e-12)
    expected = np.linalg.solve(Q, B)
    for dense in (J.toarray(), np.asarray(J), np.array(J)):
        assert type(dense) is np.ndarray
        np.testing.assert_allclose(dense, expected, rtol=1e-9)
    np.testing.assert_allclose(np.asarray(J.T), expected.T, rtol=1e-9)
    assert np.asarray(J, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="copy=False"):
        np.array(J, copy=False)
    # Arithmetic stays that of operators.
    for made in (2.0 * J, np.float64(2.0) * J):
        assert isinstance(made, sad.LinearOperator)
    assert (V @ J).shape == (M,)


def test_an_array_that_fits_no_memory_is_refused_by_its_size():
    huge = sad.LinearOperator((10**7, 10**7), lambda v: v)
    with pytest.raises(MemoryError, match=r"\(10000000, 10000000\)"):
        huge.toarray()


def test_dir_names_what_is_public():
    assert set(dir(sad)) == set(sad.__all__)
