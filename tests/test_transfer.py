"""transfer.py: what crosses between host and device, what cannot, and how it says so."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import NamedTuple

import cupy_standin
import numpy as np
import pytest
import scipy.sparse

import sparse_argdiff as sad
from sparse_argdiff import arrays


class Pair(NamedTuple):
    first: object
    second: object


@dataclasses.dataclass(frozen=True)
class Record:
    array: object
    label: str
    inner: object = None


@pytest.fixture
def cupy(monkeypatch):
    return cupy_standin.install(monkeypatch)


def test_an_array_goes_there_and_back(cupy):
    for array in (np.arange(3.0), np.ones((2, 2), np.float32), np.zeros(0)):
        there = sad.to_device(array)
        assert isinstance(there, cupy.ndarray)
        assert there.dtype == array.dtype
        assert sad.to_device(there) is there
        back = sad.to_host(there)
        assert type(back) is np.ndarray
        np.testing.assert_array_equal(back, array)
        assert sad.to_host(back) is back


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dia"])
def test_a_sparse_matrix_goes_there_and_back(cupy, kind):
    matrix = scipy.sparse.random_array((5, 3), density=0.5, rng=0).asformat(kind)
    there = sad.to_device(matrix)
    assert arrays.is_sparse(there)
    assert not scipy.sparse.issparse(there)
    assert there.format == ("csc" if kind == "csc" else "csr")
    back = sad.to_host(there)
    np.testing.assert_array_equal(back.toarray(), matrix.toarray())


def test_containers_and_records_go_with_all_that_they_hold(cupy):
    a = np.arange(3.0)
    value = {"a": [a, (a, None)], "b": Record(a, "name", Pair(a, 2.5))}
    there = sad.to_device(value)
    assert isinstance(there["a"][0], cupy.ndarray)
    assert isinstance(there["a"][1][0], cupy.ndarray)
    assert there["a"][1][1] is None
    assert there["b"].label == "name"
    assert isinstance(there["b"].inner, Pair)
    assert isinstance(there["b"].inner.first, cupy.ndarray)
    back = sad.to_host(there)
    np.testing.assert_array_equal(back["b"].inner.first, a)


def test_a_solution_goes_there_and_back(cupy):
    solution = sad.Solution(y=np.ones(3), x=np.zeros(2), status=sad.Status.CONVERGED)
    there = sad.to_device(solution)
    assert isinstance(there.y, cupy.ndarray)
    assert there.status is sad.Status.CONVERGED
    np.testing.assert_array_equal(sad.to_host(there).x, solution.x)


def test_functions_cannot_be_moved_and_the_error_says_where_they_are(cupy):
    problem = sad.Problem(sad.FunctionObjective(grad=lambda x, y: y))
    with pytest.raises(TypeError, match=r"value\.objective is of type FunctionObjec"):
        sad.to_device(problem)


def test_a_mix_of_host_and_device_is_refused_by_name(cupy):
    there = sad.to_device(np.ones(3))
    with pytest.raises(TypeError, match=r"numpy and cupy are mixed"):
        sad.cg(np.eye(3), there)
    with pytest.raises(TypeError, match=r"mixed"):
        sad.cg(sad.to_device(np.eye(3)), np.ones(3))


def test_a_missing_cupy_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"sparse_argdiff\[cuda12\].*\[cuda13\]"):
        sad.to_device(np.ones(2))


def test_a_missing_device_is_named_with_its_reason(cupy):
    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy.is_available = lambda: False
    cupy.cuda = type(sys)("cuda")
    cupy.cuda.runtime = type(sys)("runtime")
    cupy.cuda.runtime.getDeviceCount = no_driver
    with pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver"):
        sad.to_device(np.ones(2))


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"backend must be 'numpy' or 'cupy'"):
        sad.to_device(np.ones(2), "jax")


def test_a_host_tensor_enters_without_a_copy():
    class Tensor:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

        def __dlpack__(self, **kwargs):
            return self.array.__dlpack__(**kwargs)

    array = np.arange(4.0)
    found = sad.from_dlpack(Tensor(array))
    assert type(found) is np.ndarray
    assert np.shares_memory(found, array)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_tensors_of_other_libraries_enter_and_leave_without_a_copy(library):
    module = pytest.importorskip(library)
    tensor = module.asarray(np.arange(4.0, dtype=np.float32))
    entered = sad.from_dlpack(tensor)
    assert type(entered) is np.ndarray
    np.testing.assert_array_equal(entered, np.arange(4.0))
    left = module.from_dlpack(entered) if library == "torch" else None
    if left is not None:
        assert left.data_ptr() == tensor.data_ptr()


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="tensor must have __dlpack__"):
        sad.from_dlpack([1.0])

    class Elsewhere:
        def __dlpack_device__(self):
            return (10, 0)

    with pytest.raises(TypeError, match="DLPack device type 10"):
        sad.from_dlpack(Elsewhere())


def test_importing_the_package_does_not_import_cupy():
    code = "import sys, sparse_argdiff; print('cupy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=arrays.__file__.rpartition("sparse_argdiff")[0],
    )
    assert done.stdout.strip() == "False"
