"""linear_operator.py: the algebra against dense matrices, and who is let in."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from sparse_argdiff import LinearOperator, Structure, aslinearoperator, cg, minres


def dense(shape, seed=7):
    return np.random.default_rng(seed).standard_normal(shape)


def spd(n, seed=7):
    J = dense((n, n), seed)
    return J @ J.T / n + np.eye(n)


def operator(matrix, **options):
    """Build an operator from plain closures, with no block products of its own."""
    return LinearOperator(
        tuple(matrix.shape), lambda x: matrix @ x, lambda y: matrix.T @ y, **options
    )


def assert_same_map(op, matrix, xp_array=None, *, rtol=1e-12):
    """Compare all four products, forward and transposed, with a dense matrix."""
    to, back = (np.array, np.array) if xp_array is None else xp_array
    rows, columns = matrix.shape
    assert op.shape == (rows, columns)
    size = rtol * max(1.0, np.abs(matrix).sum())
    for operand, transposed in ((dense(columns, 1), False), (dense(rows, 2), True)):
        M = matrix.T if transposed else matrix
        product = op.rmatvec if transposed else op.matvec
        result = product(to(operand))
        np.testing.assert_allclose(back(result), M @ operand, rtol=0, atol=size)
        turned = op.T if transposed else op
        assert turned.shape == M.shape
        np.testing.assert_allclose(
            back(turned @ to(operand)), M @ operand, rtol=0, atol=size
        )
        for k in (0, 1, 3):
            block = dense((operand.size, k), 3)
            result = turned @ to(block)
            assert result.shape == (M.shape[0], k)
            assert getattr(result, "device", None) == getattr(
                to(block), "device", None
            ), "the result of a block product left the device of its operand"
            np.testing.assert_allclose(back(result), M @ block, rtol=0, atol=size)
            again = (op.rmatmat if transposed else op.matmat)(to(block))
            np.testing.assert_allclose(back(again), M @ block, rtol=0, atol=size)


# the algebra ------------------------------------------------------------------------

A, B, C = dense((4, 4), 11), dense((4, 4), 12), dense((4, 3), 13)

ALGEBRA = {
    "A": lambda A, B, C: A,
    "A.T": lambda A, B, C: A.T,
    "A.T.T": lambda A, B, C: A.T.T,
    "A @ B": lambda A, B, C: A @ B,
    "A @ C": lambda A, B, C: A @ C,
    "C.T @ A": lambda A, B, C: C.T @ A,
    "(A @ C).T": lambda A, B, C: (A @ C).T,
    "A @ B @ C": lambda A, B, C: A @ B @ C,
    "C @ C.T": lambda A, B, C: C @ C.T,
    "A + B": lambda A, B, C: A + B,
    "A - B": lambda A, B, C: A - B,
    "A + A.T": lambda A, B, C: A + A.T,
    "A - A": lambda A, B, C: A - A,
    "-A": lambda A, B, C: -A,
    "-C.T": lambda A, B, C: -C.T,
    "2.0 * A": lambda A, B, C: 2.0 * A,
    "A * 2.0": lambda A, B, C: A * 2.0,
    "3 * C": lambda A, B, C: 3 * C,
    "0.0 * A": lambda A, B, C: 0.0 * A,
    "float64 * A": lambda A, B, C: np.float64(2.5) * A,
    "A * float64": lambda A, B, C: A * np.float64(2.5),
    "float32 * A": lambda A, B, C: np.float32(0.5) * A,
    "A * float32": lambda A, B, C: A * np.float32(0.5),
    "int64 * A": lambda A, B, C: np.int64(-3) * A,
    "A * int64": lambda A, B, C: A * np.int64(-3),
    "((2 A - B).T @ C).T": lambda A, B, C: ((2.0 * A - B).T @ C).T,
    "(A + B) @ (A - B)": lambda A, B, C: (A + B) @ (A - B),
    "2 (C.T @ A @ C)": lambda A, B, C: 2.0 * (C.T @ (A @ C)),
}


@pytest.mark.parametrize("expression", ALGEBRA.values(), ids=ALGEBRA.keys())
def test_algebra_of_closures_agrees_with_dense(xp_array, expression):
    on_device = [operator(xp_array.to(M)) for M in (A, B, C)]
    assert_same_map(expression(*on_device), expression(A, B, C), xp_array)


@pytest.mark.parametrize("expression", ALGEBRA.values(), ids=ALGEBRA.keys())
def test_algebra_of_matrices_agrees_with_dense(xp_array, expression):
    on_device = [aslinearoperator(xp_array.to(M)) for M in (A, B, C)]
    assert_same_map(expression(*on_device), expression(A, B, C), xp_array)


@pytest.mark.parametrize("expression", ALGEBRA.values(), ids=ALGEBRA.keys())
def test_algebra_of_sparse_matrices_agrees_with_dense(expression):
    operators = [aslinearoperator(scipy.sparse.csr_array(M)) for M in (A, B, C)]
    assert_same_map(expression(*operators), expression(A, B, C))


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array], ids=["nd", "sp"])
@pytest.mark.parametrize(
    "expression",
    [
        lambda A, B: A + B,
        lambda A, B: A - B,
        lambda A, B: B + A,
        lambda A, B: B - A,
    ],
    ids=["op + matrix", "op - matrix", "matrix + op", "matrix - op"],
)
def test_an_operator_adds_to_a_plain_matrix_from_both_sides(expression, kind):
    result = expression(operator(A), kind(B))
    assert isinstance(result, LinearOperator)
    assert_same_map(result, expression(A, B))


@pytest.mark.parametrize("shape", [(4,), (2, 4), (0, 4)])
def test_an_array_multiplies_an_operator_from_the_left(xp_array, shape):
    to, back = xp_array
    left, op = dense(shape, 5), operator(to(C))
    # Strict arrays refuse `@` with anything else before we are asked.
    result = op.__rmatmul__(to(left))
    np.testing.assert_allclose(back(result), left @ C, atol=1e-13)
    np.testing.assert_allclose(left @ operator(C), left @ C, atol=1e-13)


@pytest.mark.parametrize("factor", [1j, "2", None, [2.0], np.ones(4)])
def test_only_real_scalars_scale_an_operator(factor):
    with pytest.raises(TypeError):
        operator(A) * factor
    with pytest.raises(TypeError):
        factor * operator(A)


@pytest.mark.parametrize("operand", [2.0, None, [1.0] * 4, np.float64(1.0)])
def test_matmul_refuses_what_is_no_array(operand):
    with pytest.raises(TypeError):
        operator(A) @ operand


def test_dtype_float32_is_kept_by_scaling_and_adding(xp_array):
    op = 2.0 * operator(xp_array.to(np.float32(A))) + operator(
        xp_array.to(np.eye(4, dtype="f4"))
    )
    result = xp_array.back(op @ xp_array.to(np.ones(4, np.float32)))
    assert result.dtype == np.float32


def test_the_given_block_products_are_used():
    calls = []

    def recorded(name, M):
        def product(x):
            calls.append(name)
            return M @ x

        return product

    op = LinearOperator(
        (4, 3),
        recorded("matvec", C),
        recorded("rmatvec", C.T),
        matmat=recorded("matmat", C),
        rmatmat=recorded("rmatmat", C.T),
    )
    cases = [
        (lambda: op @ np.ones(3), "matvec"),
        (lambda: op.T @ np.ones(4), "rmatvec"),
        (lambda: op @ np.ones((3, 2)), "matmat"),
        (lambda: op.T @ np.ones((4, 2)), "rmatmat"),
        (lambda: op.T.T @ np.ones((3, 2)), "matmat"),
        (lambda: (2.0 * op) @ np.ones((3, 2)), "matmat"),
        (lambda: (op @ op.T) @ np.ones((4, 2)), "rmatmat matmat"),
    ]
    for product, expected in cases:
        calls.clear()
        product()
        assert " ".join(calls) == expected


def test_a_symmetric_operator_needs_no_transpose():
    S = spd(4)
    op = LinearOperator((4, 4), lambda x: S @ x, symmetric=True)
    assert op.T is op
    assert_same_map(op, S)


# what is known by construction ------------------------------------------------------

PLAIN = operator(A)
SYMMETRIC = operator(A + A.T, symmetric=True)
DEFINITE = operator(spd(4), positive_definite=True)

FLAGS = [
    ("plain", lambda: PLAIN, False, False),
    ("symmetric", lambda: SYMMETRIC, True, False),
    ("definite is symmetric", lambda: DEFINITE, True, True),
    ("sum of definite", lambda: DEFINITE + DEFINITE, True, True),
    ("definite + symmetric", lambda: DEFINITE + SYMMETRIC, True, False),
    ("definite + plain", lambda: DEFINITE + PLAIN, False, False),
    ("definite - definite", lambda: DEFINITE - DEFINITE, True, False),
    ("positive scale", lambda: 2.0 * DEFINITE, True, True),
    ("negative scale", lambda: -2.0 * DEFINITE, True, False),
    ("zero scale", lambda: 0.0 * DEFINITE, True, False),
    ("negation", lambda: -DEFINITE, True, False),
    ("negation of an unknown", lambda: -PLAIN, False, False),
    ("product of symmetric ones", lambda: SYMMETRIC @ DEFINITE, False, False),
    ("transpose", lambda: DEFINITE.T, True, True),
    ("a matrix claims nothing", lambda: aslinearoperator(spd(4)), False, False),
]


@pytest.mark.parametrize(
    ("build", "symmetric", "definite"),
    [row[1:] for row in FLAGS],
    ids=[row[0] for row in FLAGS],
)
def test_flags_follow_the_algebra(build, symmetric, definite):
    op = build()
    assert op.symmetric is symmetric
    assert op.positive_definite is definite


d, e = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 6.0, 7.0, 9.0])


def diag_operator(to, entries, **options):
    entries = to(entries)
    options.setdefault("diagonal", entries)
    return LinearOperator((4, 4), lambda x: entries * x, symmetric=True, **options)


DIAGONALS = [
    ("given", lambda D, E, N: D, d),
    ("sum", lambda D, E, N: D + E, d + e),
    ("difference", lambda D, E, N: D - E, d - e),
    ("scaled", lambda D, E, N: 3.0 * D, 3.0 * d),
    ("transposed", lambda D, E, N: D.T, d),
    ("sum with one unknown", lambda D, E, N: D + N, None),
    ("scaled unknown", lambda D, E, N: 2.0 * N, None),
    ("product", lambda D, E, N: D @ E, None),
]


@pytest.mark.parametrize(
    ("build", "expected"),
    [row[1:] for row in DIAGONALS],
    ids=[row[0] for row in DIAGONALS],
)
def test_diagonal_follows_the_algebra(xp_array, build, expected):
    to, back = xp_array
    D = diag_operator(to, d)
    E = diag_operator(to, e, diagonal=lambda: to(e))
    N = diag_operator(to, d, diagonal=None)
    op = build(D, E, N)
    assert op.has_diagonal is (expected is not None)
    if expected is None:
        with pytest.raises(NotImplementedError, match="diagonal"):
            op.diagonal()
    else:
        np.testing.assert_allclose(back(op.diagonal()), expected)


def test_a_diagonal_function_is_called_only_when_asked():
    calls = []
    D = diag_operator(np.array, d, diagonal=lambda: calls.append(1) or d)
    op = 2.0 * (D + D)
    op @ np.ones(4)
    assert op.has_diagonal
    assert calls == []
    op.diagonal()
    assert len(calls) == 2


NOTED = operator(A, structure=Structure(note="first", accuracy=1e-7))
OTHER = operator(B, structure=Structure(note="second", accuracy=1e-5))
SILENT = operator(B)

NOTES = [
    ("transpose", lambda: NOTED.T, ["first"], 1e-7),
    ("scale", lambda: -2.0 * NOTED, ["first"], 1e-7),
    ("sum", lambda: NOTED + OTHER, ["first", "second"], 1e-5),
    ("difference", lambda: NOTED - OTHER, ["first", "second"], 1e-5),
    ("product", lambda: NOTED @ OTHER, ["first", "second"], 1e-5),
    ("sum with silent", lambda: NOTED + SILENT, ["first"], 1e-7),
    ("silent product", lambda: SILENT @ NOTED, ["first"], 1e-7),
    ("matrix", lambda: NOTED + B, ["first"], 1e-7),
    ("said once", lambda: NOTED + NOTED, ["first"], 1e-7),
    (
        "said once in a chain",
        lambda: (NOTED + OTHER) + NOTED,
        ["first", "second"],
        1e-5,
    ),
    ("silent", lambda: SILENT + SILENT, [], None),
]


@pytest.mark.parametrize(
    ("build", "notes", "accuracy"),
    [row[1:] for row in NOTES],
    ids=[row[0] for row in NOTES],
)
def test_notes_and_accuracy_propagate(build, notes, accuracy):
    op = build()
    assert [op.note.count(note) for note in notes] == [1] * len(notes)
    assert bool(op.note) is bool(notes)
    assert op.accuracy == accuracy


def test_repr_says_kind_and_shape():
    assert "4 x 3" in repr(operator(C))
    assert "positive definite" in repr(DEFINITE)
    assert "positive" not in repr(SYMMETRIC)
    assert "symmetric" in repr(SYMMETRIC)


@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
def test_todense_returns_all_entries(dtype):
    result = operator(C, dtype=dtype).todense()
    np.testing.assert_allclose(result, C, rtol=1e-6)
    assert operator(C, dtype=dtype).dtype == dtype


# who is let in ----------------------------------------------------------------------


class WithMatvecOnly:
    """The least that is an operator."""

    def __init__(self, matrix):
        self.shape = matrix.shape
        self.matrix = matrix

    def matvec(self, x):
        return self.matrix @ x


class WithMatmulOnly:
    """An operator by ``@``, without a transpose."""

    def __init__(self, matrix):
        self.shape = matrix.shape
        self.matrix = matrix

    def __matmul__(self, x):
        return self.matrix @ x


BOTH_WAYS = {
    "ndarray": np.asarray,
    "Fortran ndarray": np.asfortranarray,
    "csr_array": scipy.sparse.csr_array,
    "csc_array": scipy.sparse.csc_array,
    "coo_array": scipy.sparse.coo_array,
    "bsr_array": scipy.sparse.bsr_array,
    "dia_array": scipy.sparse.dia_array,
    "csr_matrix": scipy.sparse.csr_matrix,
    "csc_matrix": scipy.sparse.csc_matrix,
    "coo_matrix": scipy.sparse.coo_matrix,
    "SciPy LinearOperator": scipy.sparse.linalg.aslinearoperator,
    "SciPy LinearOperator of functions": lambda M: scipy.sparse.linalg.LinearOperator(
        M.shape, matvec=lambda x: M @ x, rmatvec=lambda y: M.T @ y, dtype=M.dtype
    ),
    "ours": operator,
}


@pytest.mark.parametrize("matrix", [A, C, C.T], ids=["square", "tall", "wide"])
@pytest.mark.parametrize("kind", BOTH_WAYS.values(), ids=BOTH_WAYS.keys())
def test_aslinearoperator_of_matrices_and_operators(kind, matrix):
    assert_same_map(aslinearoperator(kind(matrix)), matrix)


@pytest.mark.parametrize("kind", [WithMatvecOnly, WithMatmulOnly])
def test_aslinearoperator_of_an_object_without_a_transpose(kind):
    op = aslinearoperator(kind(C))
    np.testing.assert_allclose(op @ dense(3), C @ dense(3))
    np.testing.assert_allclose(op @ dense((3, 2)), C @ dense((3, 2)))
    with pytest.raises(NotImplementedError, match="rmatvec"):
        op.T.T.rmatvec(np.ones(4))
    with pytest.raises(NotImplementedError):
        op.T @ np.ones(4)


def test_aslinearoperator_returns_our_own_unchanged():
    op = operator(C)
    assert aslinearoperator(op) is op


@pytest.mark.parametrize(
    "kind", [np.asarray, scipy.sparse.csr_array, scipy.sparse.coo_matrix]
)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_an_integer_matrix_acts_on_floating_vectors(kind, dtype):
    matrix = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    op = aslinearoperator(kind(matrix))
    assert_same_map(op, matrix.astype(float))
    assert (op @ np.ones(3)).dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_dtype_of_a_matrix_is_known(kind, dtype):
    op = aslinearoperator(kind(C.astype(dtype)))
    assert op.dtype == dtype
    assert (op @ np.ones(3, dtype)).dtype == dtype


@pytest.mark.parametrize("name", ["ndarray", "csr_array", "dia_array", "csc_matrix"])
def test_the_diagonal_of_a_square_matrix_is_known(name):
    kind = BOTH_WAYS[name]
    np.testing.assert_allclose(aslinearoperator(kind(A)).diagonal(), np.diag(A))
    assert not aslinearoperator(kind(C)).has_diagonal


def test_the_diagonal_of_an_array_is_known_on_its_device(xp_array):
    to, back = xp_array
    op = aslinearoperator(to(A))
    assert op.has_diagonal
    np.testing.assert_allclose(back(op.diagonal()), np.diag(A))
    assert not aslinearoperator(to(C)).has_diagonal


@pytest.mark.parametrize(
    "value",
    [None, "A", 2.0, [[1.0, 2.0]], lambda x: x, np.sum],
    ids=["None", "str", "float", "list", "function", "ufunc"],
)
def test_aslinearoperator_refuses_other_things(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        aslinearoperator(value)


@pytest.mark.parametrize("shape", [(3,), (), (2, 2, 2)])
def test_aslinearoperator_refuses_other_dimensions(xp_array, shape):
    with pytest.raises(ValueError, match="two dimensions"):
        aslinearoperator(xp_array.to(np.zeros(shape)))


@pytest.mark.parametrize("dtype", ["complex128", "complex64", "object", "<U1"])
def test_aslinearoperator_refuses_entries_that_are_not_real(dtype):
    with pytest.raises(TypeError, match=rf"real.*{dtype}"):
        aslinearoperator(np.zeros((2, 2), dtype))


def test_aslinearoperator_refuses_a_complex_matrix_of_the_strict_namespace(
    strict_array,
):
    with pytest.raises(TypeError, match=r"real.*complex128"):
        aslinearoperator(strict_array.to(np.eye(2, dtype=complex)))


@pytest.mark.parametrize(
    "kind", [scipy.sparse.csr_array, scipy.sparse.linalg.aslinearoperator]
)
def test_aslinearoperator_refuses_complex_sparse_and_operators(kind):
    with pytest.raises(TypeError, match="real"):
        aslinearoperator(kind(np.eye(2, dtype=complex)))


def test_a_matrix_and_a_vector_of_two_namespaces_are_refused_by_name(strict_array):
    # A product of a host matrix and a device vector must not become a transfer,
    # nor an error of somebody else's that names neither.
    names = r"(?s)numpy.*array_api_strict|array_api_strict.*numpy"
    with pytest.raises(TypeError, match=names):
        aslinearoperator(A) @ strict_array.to(np.ones(4))
    with pytest.raises(TypeError, match=names):
        aslinearoperator(strict_array.to(A)) @ np.ones(4)


# errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "shape"),
    [
        (lambda op: op @ np.ones(4), r"\(3,\).*\(4,\)"),
        (lambda op: op.T @ np.ones(3), r"\(4,\).*\(3,\)"),
        (lambda op: op @ np.ones((4, 2)), r"\(3, k\).*\(4, 2\)"),
        (lambda op: op.T @ np.ones((3, 2)), r"\(4, k\).*\(3, 2\)"),
        (lambda op: np.ones(3) @ op, r"\(4,\).*\(3,\)"),
        (lambda op: op.matvec(np.ones((3, 2))), r"\(3,\).*\(3, 2\)"),
        (lambda op: op.matmat(np.ones(3)), r"\(3, k\).*\(3,\)"),
        (lambda op: op @ op, r"\(4, 3\) and \(4, 3\)"),
        (lambda op: op + op.T, r"\(4, 3\) and \(3, 4\)"),
        (lambda op: op - np.ones((2, 3)), r"\(4, 3\) and \(2, 3\)"),
    ],
)
def test_operands_of_the_wrong_shape_are_refused(product, shape):
    with pytest.raises(ValueError, match=shape):
        product(operator(C))


@pytest.mark.parametrize(
    "result",
    [np.ones(5), np.ones((4, 1)), 1.0, None, [1.0] * 4],
    ids=["longer", "column", "scalar", "None", "list"],
)
def test_a_product_of_the_wrong_shape_is_refused(result):
    op = LinearOperator((4, 3), lambda x: result, lambda y: result)
    with pytest.raises(ValueError, match=r"matvec must return .*\(4,\)"):
        op @ np.ones(3)
    with pytest.raises(ValueError, match=r"rmatvec must return .*\(3,\)"):
        op.T.T.rmatvec(np.ones(4))


@pytest.mark.parametrize(
    "result",
    [np.ones((5, 2)), np.ones((4, 1)), np.ones(4), None],
    ids=["longer", "fewer columns", "one column", "None"],
)
def test_a_block_product_of_the_wrong_shape_is_refused(result):
    op = LinearOperator((4, 3), None, matmat=lambda x: result, rmatmat=lambda y: result)
    with pytest.raises(ValueError, match=r"matmat must return .*\(4, 2\)"):
        op @ np.ones((3, 2))
    with pytest.raises(ValueError, match=r"rmatmat must return .*\(3, 2\)"):
        op.rmatmat(np.ones((4, 2)))


def test_a_missing_function_is_named():
    op = LinearOperator((4, 3), None, None)
    for product, name in (
        (op.matvec, "matvec"),
        (op.matmat, "matvec"),
        (op.rmatvec, "rmatvec"),
        (op.rmatmat, "rmatvec"),
    ):
        rows = 4 if name == "rmatvec" else 3
        operand = np.ones((rows, 1) if product.__name__.endswith("mat") else rows)
        with pytest.raises(NotImplementedError, match=rf"without {name}\b"):
            product(operand)


@pytest.mark.parametrize(
    "shape", [(-1, 2), (2, -1), (3,), (1, 2, 3), (2.5, 3), 3, None, ("a", 2)]
)
def test_shape_is_two_whole_numbers(shape):
    with pytest.raises((ValueError, TypeError), match="shape"):
        LinearOperator(shape, lambda x: x)


@pytest.mark.parametrize("flag", ["symmetric", "positive_definite"])
def test_only_a_square_operator_is_symmetric(flag):
    with pytest.raises(ValueError, match=r"square.*\(4, 3\)"):
        LinearOperator((4, 3), lambda x: x, **{flag: True})


@pytest.mark.parametrize("name", ["matvec", "rmatvec", "matmat", "rmatmat"])
def test_functions_are_callable(name):
    # A matrix in the place of a function is a common slip.
    functions = {"matvec": lambda x: x, name: np.eye(2)}
    with pytest.raises(TypeError, match=rf"\b{name}\b.*ndarray"):
        LinearOperator((2, 2), **functions)


# with SciPy -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, np.float64])
@pytest.mark.parametrize("name", ["cg", "minres", "gmres"])
def test_scipy_solvers_accept_our_operators(name, dtype):
    S, b = spd(12), dense(12)
    op = operator(S, dtype=dtype, positive_definite=True)
    x, info = getattr(scipy.sparse.linalg, name)(op, b, rtol=1e-12, M=0.5 * op.T)
    assert info == 0
    np.testing.assert_allclose(x, np.linalg.solve(S, b), rtol=1e-8)


@pytest.mark.parametrize("dtype", [None, np.float64])
def test_scipy_eigsh_accepts_our_operators(dtype):
    S = spd(20)
    op = operator(S, dtype=dtype, symmetric=True)
    values = scipy.sparse.linalg.eigsh(op, 3, v0=np.ones(20), return_eigenvectors=False)
    expected = np.linalg.eigvalsh(S)[-3:]
    np.testing.assert_allclose(np.sort(values), expected, rtol=1e-8)


@pytest.mark.parametrize("dtype", [None, np.float64])
def test_scipy_block_products_hand_over_columns(dtype):
    # SciPy's default block product calls matvec with columns of shape (n, 1).
    op = scipy.sparse.linalg.aslinearoperator(operator(C, dtype=dtype))
    np.testing.assert_allclose(op.matmat(dense((3, 2))), C @ dense((3, 2)))
    np.testing.assert_allclose(op.rmatmat(dense((4, 2))), C.T @ dense((4, 2)))
    J = dense((20, 9))
    values = scipy.sparse.linalg.svds(
        operator(J, dtype=dtype), 2, v0=np.ones(9), return_singular_vectors=False
    )
    expected = np.linalg.svd(J, compute_uv=False)[:2]
    np.testing.assert_allclose(np.sort(values)[::-1], expected, rtol=1e-8)


def test_apply_writes_into_the_buffer_and_passes_the_curvature_on():
    A = np.array([[2.0, 1.0], [1.0, 3.0]])
    x, out = np.array([1.0, -1.0]), np.empty(2)
    assert aslinearoperator(A).apply(x, out) is None
    np.testing.assert_array_equal(out, A @ x)

    def into(x, out):
        np.matmul(A, x, out=out)
        return float(x @ out)

    plain = LinearOperator((2, 2), lambda x: A @ x)
    fast = plain.with_product(into)
    out[:] = 0.0
    assert fast.apply(x, out) == x @ A @ x
    np.testing.assert_array_equal(out, A @ x)
    with pytest.raises(TypeError, match="into"):
        plain.with_product(3)


@pytest.mark.parametrize("solve", [cg, minres])
def test_a_complex_product_is_refused_and_not_cut_down_to_its_real_part(solve):
    A = np.diag([1.0 + 1.0j, 2.0])
    operator = LinearOperator((2, 2), lambda v: A @ v, matmat=lambda v: A @ v)
    with pytest.raises(TypeError, match=r"matvec must return real numbers.*complex128"):
        operator @ np.ones(2)
    with pytest.raises(TypeError, match=r"matmat must return real numbers.*complex128"):
        operator @ np.ones((2, 2))
    with pytest.raises(TypeError, match="matvec must return real numbers"):
        solve(operator, np.ones(2))


def test_an_operator_is_immutable_and_its_changed_copies_leave_it_as_it_was():
    M = LinearOperator((2, 2), lambda r: r, positive_definite=True)
    renewed = M.with_setup(update=lambda A: M, n_matvec=3)
    assert (M.update, M.n_matvec) == (None, 0)
    assert renewed.update(None) is M
    assert renewed.n_matvec == 3
    assert renewed.with_setup(n_matvec=0).update is renewed.update
    assert renewed.with_product(None, blocks=True).n_matvec == 3
    for name in ("n_matvec", "into", "symmetric", "accuracy", "invented"):
        with pytest.raises(AttributeError, match=name):
            setattr(M, name, 1)
