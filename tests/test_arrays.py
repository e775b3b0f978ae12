"""arrays/: the namespace is the arrays' own, and norms survive any scale."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import scipy.sparse

from sparse_argdiff import arrays

FLOATS = (np.float32, np.float64)


# the namespace ----------------------------------------------------------------------


def test_namespace_is_the_arrays_own(xp_array):
    to, _ = xp_array
    x, y = to(np.ones(2)), to(np.ones((2, 2)))
    xp = arrays.namespace(x, y)
    assert isinstance(xp.zeros_like(x), type(x))
    assert arrays.namespace() is np
    assert arrays.namespace(np.float64(1.0), np.ones(2)) is np


def test_a_mix_of_namespaces_is_refused_by_name(strict_array):
    with pytest.raises(TypeError, match=r"numpy.*array_api_strict"):
        arrays.namespace(np.ones(2), strict_array.to(np.ones(2)))
    with pytest.raises(TypeError, match=r"array_api_strict.*numpy"):
        arrays.namespace(strict_array.to(np.ones(2)), np.ones(2), np.ones(2))


@pytest.mark.parametrize(
    ("value", "name"),
    [([1.0], "list"), (1.0, "float"), (None, "NoneType"), ("ab", "str")],
)
def test_namespace_refuses_what_is_no_array(value, name):
    with pytest.raises(TypeError, match=name):
        arrays.namespace(np.ones(2), value)


# what may enter ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (3, 2), (3, 0)])
def test_as_floating_returns_the_same_object(xp_array, dtype, shape):
    array = xp_array.to(np.zeros(shape, dtype))
    assert arrays.as_floating("b", array, ndim=(1, 2)) is array


def test_as_floating_accepts_lists_and_tuples_of_floats():
    for value in ([1.0, 2.0], (1.0, 2.0)):
        array = arrays.as_floating("b", value)
        assert array.dtype == np.float64
        assert array.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.arange(3), "int64"),
        ([1, 2], "int64"),
        (np.ones(3, bool), "bool"),
        (np.ones(3, complex), "complex128"),
        (np.ones(3, object), "object"),
        (np.ones(3, np.float16), "float16"),
        (np.array(["a"]), "<U1"),
        (None, "NoneType"),
        ("abc", "str"),
        (3, "int"),
        ({1.0}, "set"),
        (scipy.sparse.csr_array(np.eye(2)), "csr_array"),
    ],
)
def test_as_floating_refuses_naming_the_argument_and_what_it_found(value, found):
    with pytest.raises(TypeError, match=rf"^target_x .*{found}"):
        arrays.as_floating("target_x", value, ndim=(1, 2))


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex128"])
def test_as_floating_refuses_other_dtypes_of_the_strict_namespace(strict_array, dtype):
    array = strict_array.to(np.ones(3, dtype))
    with pytest.raises(TypeError, match=rf"^b .*{dtype}"):
        arrays.as_floating("b", array)


@pytest.mark.parametrize(
    ("shape", "ndim", "message"),
    [
        ((3, 2), (1,), r"b must be 1-D, found shape \(3, 2\)"),
        ((), (1,), r"b must be 1-D, found shape \(\)"),
        ((1, 2, 3), (1, 2), r"b must be 1-D or 2-D, found shape \(1, 2, 3\)"),
    ],
)
def test_as_floating_refuses_other_dimensions(xp_array, shape, ndim, message):
    with pytest.raises(ValueError, match=message):
        arrays.as_floating("b", xp_array.to(np.ones(shape)), ndim=ndim)


def test_as_vector_checks_the_size(xp_array):
    vector = xp_array.to(np.ones(3))
    assert arrays.as_vector("y", vector) is vector
    assert arrays.as_vector("y", vector, 3) is vector
    with pytest.raises(ValueError, match=r"y must have shape \(4,\).*\(3,\)"):
        arrays.as_vector("y", vector, 4)
    with pytest.raises(ValueError, match="y must be 1-D"):
        arrays.as_vector("y", xp_array.to(np.ones((3, 1))))


# scalars of arrays ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_epsilon_is_that_of_the_dtype(xp_array, dtype):
    value = arrays.epsilon(xp_array.to(np.ones(2, dtype)))
    assert isinstance(value, float)
    assert value == np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", FLOATS)
def test_dot_is_a_python_float(xp_array, dtype):
    x, y = np.array([1, 2, 3], dtype), np.array([4, 5, -6], dtype)
    value = arrays.dot(xp_array.to(x), xp_array.to(y))
    assert type(value) is float
    assert value == -4.0


NORMS = [
    ([], 0.0),
    ([0.0, 0.0], 0.0),
    ([-0.0], 0.0),
    ([3.0, -4.0], 5.0),
    ([3e-10, 4e-10], 5e-10),
    ([3e20, 4e20], 5e20),
    ([3e-200, 4e-200], 5e-200),
    ([3e200, 4e200], 5e200),
    ([3e-320, 4e-320], 5e-320),
    ([1e200, 1.0, 1e-200], 1e200),
    ([1e308] * 3, 3**0.5 * 1e308),
    ([math.inf, 1.0], math.inf),
    ([-math.inf, 1e200], math.inf),
]


@pytest.mark.parametrize(("entries", "expected"), NORMS)
def test_norm_neither_overflows_nor_underflows(xp_array, entries, expected):
    # The suite turns warnings into errors: an overflow on the way shows.
    value = arrays.norm(xp_array.to(np.array(entries, np.float64)))
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-3 if expected < 1e-310 else 1e-14)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-20, 1e-3, 1e3, 1e18, 1e30, 1e38])
def test_norm_of_float32_neither_overflows_nor_underflows(xp_array, size):
    x = np.array([size, -size, size, size], np.float32)
    expected = 2.0 * float(x[0])
    assert arrays.norm(xp_array.to(x)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("entries", [[math.nan], [1.0, math.nan], [math.inf, math.nan]])
def test_norm_of_nan_is_nan(xp_array, entries):
    assert math.isnan(arrays.norm(xp_array.to(np.array(entries))))


@pytest.mark.parametrize(
    ("entries", "finite"),
    [
        ([], True),
        ([0.0, 1.0], True),
        ([1e200, -1e200], True),
        ([1.7e308] * 4, True),
        ([1e-320], True),
        ([1.0, math.inf], False),
        ([-math.inf], False),
        ([1.0, math.nan], False),
        ([math.inf, -math.inf], False),
        ([math.inf, math.nan], False),
    ],
)
def test_is_finite_speaks_of_the_entries_whatever_their_size(xp_array, entries, finite):
    assert arrays.is_finite(xp_array.to(np.array(entries, np.float64))) is finite


# axpy -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_axpy_adds_in_place_and_leaves_x_alone(xp_array, dtype):
    to, back = xp_array
    x, y = to(np.array([1, 2, 3], dtype)), to(np.array([10, 20, 30], dtype))
    assert arrays.axpy(-2.0, x, y) is None
    np.testing.assert_array_equal(back(y), np.array([8, 16, 24], dtype))
    np.testing.assert_array_equal(back(x), np.array([1, 2, 3], dtype))
    assert back(y).dtype == dtype


AXPY_LAYOUTS = {
    "strided x": lambda n: (np.arange(2.0 * n)[::2], np.ones(n)),
    "strided y": lambda n: (np.arange(n) + 0.5, np.ones(2 * n)[::2]),
    "reversed x": lambda n: (np.arange(n)[::-1] + 0.0, np.ones(n)),
    "reversed y": lambda n: (np.arange(n) + 0.5, np.arange(n + 0.0)[::-1]),
    "column x": lambda n: (np.ones((n, 3))[:, 1], np.ones(n)),
    "column y": lambda n: (np.arange(n) + 0.5, np.ones((n, 3))[:, 1]),
    "read-only x": lambda n: (np.broadcast_to(np.float64(3.0), (n,)), np.ones(n)),
    "float32 x": lambda n: (np.ones(n, np.float32), np.ones(n)),
    "float64 x, float32 y": lambda n: (np.ones(n), np.ones(n, np.float32)),
}


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("layout", AXPY_LAYOUTS.values(), ids=AXPY_LAYOUTS.keys())
def test_axpy_works_in_place_for_any_layout(layout, n):
    x, y = layout(n)
    expected, dtype = y + 0.25 * x, y.dtype
    arrays.axpy(0.25, x, y)
    np.testing.assert_allclose(y, expected, rtol=1e-7)
    assert y.dtype == dtype


def test_axpy_touches_nothing_beyond_a_view():
    storage = np.zeros(6)
    arrays.axpy(1.0, np.ones(2), storage[2:4])
    assert storage.tolist() == [0, 0, 1, 1, 0, 0]


def test_axpy_of_empty_vectors_does_nothing(xp_array):
    x, y = xp_array.to(np.zeros(0)), xp_array.to(np.zeros(0))
    arrays.axpy(2.0, x, y)
    assert y.shape == (0,)


def test_axpy_never_writes_through_a_read_only_array():
    # BLAS wrappers do not look at NumPy's write flag.
    y = np.ones(3)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        arrays.axpy(2.0, np.ones(3), y)
    assert y.tolist() == [1.0, 1.0, 1.0]


def test_the_strict_backend_refuses_to_become_a_host_array(strict_array):
    # The premise of every test on this backend: a leak to the host raises.
    array = strict_array.to(np.ones(3))
    assert isinstance(array, type(array_api_strict.zeros(1)))
    with pytest.raises(RuntimeError, match="device1"):
        np.asarray(array)
