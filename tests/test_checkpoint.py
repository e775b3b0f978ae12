"""Checkpoints: a run that was stopped anywhere, even killed, ends as if it had not been.

Run as a script this file is the process that the tests kill.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.bilevel import checkpoint as checkpoints
from sparse_argdiff.bilevel.checkpoint import Store, previous
from sparse_argdiff.linear_model import Glm

METHODS = [
    "inexact_lbfgs",
    "newton",
    "maid",
    "hoag",
    "hoag_quadratic",
    "gradient_descent",
    "lbfgs",
]
each_method = pytest.mark.parametrize("method", METHODS)


class Stopped(Exception):
    pass


class Task:
    """A logistic model with a penalty per feature; what is spent on it is counted."""

    def __init__(self, method="gradient_descent", seed=7, dtype=np.float64, p=20):
        rng = np.random.default_rng(seed)
        A, V = (
            sparse.random_array((N, p), density=0.3, rng=rng, format="csr", dtype=dtype)
            for N in (120, 60)
        )
        c = 3.0 * rng.standard_normal(p)
        t, s = ((F @ c + 0.3 * rng.standard_normal(F.shape[0]) > 0) for F in (A, V))
        glm = Glm(A, t.astype(dtype))
        self.problem = sad.Problem(glm)
        self.held = glm.held_out(V, s.astype(dtype))
        self.x0 = np.full(p, -4.0, dtype=dtype)
        self.method = method
        self.products = 0
        self.on_product = lambda count: None
        hess = glm.hess

        def counted(x, y):
            H = hess(x, y)

            def product(v):
                self.products += 1
                self.on_product(self.products)
                return H @ v

            return sad.LinearOperator(
                H.shape, product, dtype=H.dtype, symmetric=True, diagonal=H.diagonal
            )

        glm.hess = counted

    def minimize(self, **options):
        options = {"bounds": (-9.0, 0.0), "tol": 1e-7, "maxiter": 9} | options
        x0 = options.pop("x0", self.x0)
        method = options.pop("method", self.method)
        return sad.minimize(self.problem, self.held, x0, method=method, **options)


def assert_same(found, expected, *, counters=True):
    for name in ("x", "y", "jac"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert found.fun == expected.fun
    assert found.status is expected.status
    assert found.message == expected.message
    if counters:
        for name in ("nit", "nfev", "n_hvp", "n_grad"):
            assert found[name] == expected[name], name
        strip = [
            [dataclasses.replace(record, seconds=0.0) for record in run.history]
            for run in (found, expected)
        ]
        assert strip[0] == strip[1]
    seconds = [record.seconds for record in found.history]
    assert seconds == sorted(seconds)


def stop_at(nit):
    def callback(state):
        if state.record.nit == nit:
            raise Stopped

    return callback


# going on -----------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("every", [1, 3])
def test_a_stopped_run_goes_on_bitwise(method, every, tmp_path):
    whole = Task(method).minimize()
    assert whole.nit >= 5
    for at in (0, 1, 4, whole.nit):
        path, task = tmp_path / f"run-{at}", Task(method)
        with pytest.raises(Stopped):
            task.minimize(checkpoint=path, checkpoint_every=every, callback=stop_at(at))
        seen, spent = [], task.products
        found = task.minimize(
            checkpoint=path, checkpoint_every=every, callback=seen.append
        )
        assert_same(found, whole)
        # The callback of the step that was lost is called again, no other.
        lost = 0 if at == 0 else (at - 1) // every * every + 1
        assert [s.record.nit for s in seen] == list(range(lost, whole.nit + 1))
        if at > every:
            assert task.products - spent < whole.n_hvp


@each_method
def test_stopped_many_times(method, tmp_path):
    whole, task = Task(method).minimize(), Task(method)
    for at in range(whole.nit + 1):
        with pytest.raises(Stopped):
            task.minimize(checkpoint=tmp_path / "run", callback=stop_at(at))
    assert_same(task.minimize(checkpoint=tmp_path / "run"), whole)


@each_method
def test_interrupted_within_a_product(method, tmp_path):
    """Ctrl-C anywhere: the exception passes, the file stays valid."""
    whole = Task(method).minimize()
    for at in np.linspace(1, whole.n_hvp - 1, 4).astype(int):
        task, path = Task(method), tmp_path / str(at)

        def interrupt(count, at=at):
            if count == at:
                raise KeyboardInterrupt

        task.on_product = interrupt
        with pytest.raises(KeyboardInterrupt):
            task.minimize(checkpoint=path)
        assert_same(task.minimize(checkpoint=path), whole)


@each_method
def test_a_run_that_ended_returns_at_once(method, tmp_path):
    task = Task(method)
    options = {"checkpoint": tmp_path / "run", "tol": 0.5, "maxiter": 60}
    ended = task.minimize(**options)
    assert ended.success
    spent, before = task.products, (tmp_path / "run").read_bytes()
    again = task.minimize(**options, callback=stop_at(0))
    assert_same(again, ended)
    assert isinstance(again.certificate, type(ended.certificate))
    assert task.products == spent
    assert (tmp_path / "run").read_bytes() == before


@each_method
def test_more_iterations_go_on(method, tmp_path):
    whole, task = Task(method).minimize(), Task(method)
    for maxiter in (0, 1, 4, 9):
        found = task.minimize(checkpoint=tmp_path / "run", maxiter=maxiter)
        assert found.nit == maxiter
    assert_same(found, whole)


@each_method
def test_a_run_that_its_callback_stopped_goes_on(method, tmp_path):
    whole, task = Task(method).minimize(), Task(method)
    for nit in (0, 3, 4):
        found = task.minimize(
            checkpoint=tmp_path / "run", callback=lambda s, at=nit: s.record.nit == at
        )
        assert found.status is sad.Status.STOPPED_BY_CALLBACK
        assert found.nit == nit
    assert_same(task.minimize(checkpoint=tmp_path / "run"), whole)


def test_killed_between_the_callbacks_stop_and_the_end(tmp_path, monkeypatch):
    """A stop that was asked for is one to go on from, whenever the end came."""
    whole, task, path = Task().minimize(), Task(), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sad.bilevel.Run, "result", lambda run, status: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            task.minimize(checkpoint=path, callback=lambda s: s.record.nit == 3)
    assert_same(task.minimize(checkpoint=path), whole)


@each_method
def test_writing_changes_nothing(method, tmp_path):
    assert_same(
        Task(method).minimize(checkpoint=tmp_path / "a"), Task(method).minimize()
    )


@each_method
def test_single_precision(method, tmp_path):
    def task():
        return Task(method, dtype=np.float32)

    options = {"lower_tol": 1e-4, "tol": 1e-3, "checkpoint": tmp_path / "run"}
    whole = task().minimize(**options | {"checkpoint": None})
    at = max(1, whole.nit // 2)
    with pytest.raises(Stopped):
        task().minimize(**options, callback=stop_at(at))
    found = task().minimize(**options)
    assert_same(found, whole)
    assert found.x.dtype == found.jac.dtype == np.float32


@each_method
def test_with_multipliers(method, tmp_path):
    """Constrained solutions and their adjoints are of the record, too."""
    rng = np.random.default_rng(0)
    A, C = np.diag(rng.uniform(1.0, 9.0, 6)), rng.standard_normal((2, 6))
    K = np.block([[A, C.T], [C, np.zeros((2, 2))]])
    objective = sad.FunctionObjective(
        value=lambda x, y: 0.5 * y @ A @ y - y @ x,
        grad=lambda x, y: A @ y - x,
        hvp=lambda x, y, v: A @ v,
        cross_vjp=lambda x, y, w: -w,
        n=6,
    )
    problem = sad.Problem(objective, equality=sad.LinearEquality(C, np.ones(2)))

    def solver(problem, x, y0, tol):
        z = np.linalg.solve(K, np.append(x, np.ones(2)))
        return sad.Solution(y=z[:6], x=x, multipliers=z[6:])

    upper = sad.FunctionUpper(
        value=lambda x, y: float(np.sum((y - 1.0) ** 4)) + 0.05 * float(x @ x),
        grad_y=lambda x, y: 4.0 * (y - 1.0) ** 3,
        grad_x=lambda x, y: 0.1 * x,
    )

    def run(**options):
        return sad.minimize(
            problem,
            upper,
            np.zeros(6),
            method=method,
            solver=solver,
            M=None,
            adjoint_tol=1e-10,
            maxiter=8,
            tol=1e-9,
            **options,
        )

    whole = run()
    with pytest.raises(Stopped):
        run(checkpoint=tmp_path / "run", callback=stop_at(2))
    assert_same(run(checkpoint=tmp_path / "run"), whole)


def test_scipy_that_takes_another_path_is_found_out(tmp_path, monkeypatch):
    """Recorded values answer for the points they were computed at, and no others."""
    task, path = Task("lbfgs"), tmp_path / "run"
    with pytest.raises(Stopped):
        task.minimize(checkpoint=path, callback=stop_at(4))
    minimize = sad.bilevel.lbfgs.optimize.minimize

    def other(fun, x0, **options):
        return minimize(fun, x0, **options | {"options": {"maxcor": 1, "maxiter": 9}})

    monkeypatch.setattr("scipy.optimize.minimize", other)
    with pytest.raises(ValueError, match="cannot be followed"):
        task.minimize(checkpoint=path)


# another run --------------------------------------------------------------------------

OTHERS = {
    "method": ({"method": "maid"}, "method was 'gradient_descent', is 'maid'"),
    "tol": ({"tol": 1e-3}, "tol was 1e-07, is 0.001"),
    "lower_tol": ({"lower_tol": 1e-6}, "lower_tol was 1e-08, is 1e-06"),
    "warm_start": ({"warm_start": False}, "warm_start was None, is False"),
    "bounds": ({"bounds": (-8.0, 0.0)}, "low was float64"),
    "no bounds": ({"bounds": None}, "high was float64"),
    "start": ({"x0": np.full(20, -3.0)}, "x0 was float64"),
    "dtype": ({"x0": np.full(20, -4.0, np.float32)}, "dtype was 'float64'"),
    "y0": ({"y0": np.ones(21)}, "y0 was None"),
    "M": ({"M": None}, "M was "),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused(name, tmp_path):
    changes, message = OTHERS[name]
    task, path = Task(), tmp_path / "run"
    task.minimize(checkpoint=path, maxiter=2)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is of another run") as caught:
        task.minimize(checkpoint=path, **changes)
    assert message in str(caught.value)
    assert path.read_bytes() == before


def test_another_size_is_refused(tmp_path):
    Task().minimize(checkpoint=tmp_path / "run", maxiter=2)
    with pytest.raises(ValueError, match="m was 20, is 21; n was 21, is 22"):
        Task(p=21).minimize(checkpoint=tmp_path / "run")


@pytest.mark.parametrize("level", ["lower", "upper"])
def test_other_data_are_refused(level, tmp_path):
    """The same call, sizes and options, and yet another F."""
    task, path = Task(), tmp_path / "run"
    task.minimize(checkpoint=path, maxiter=2)
    other, before = Task(seed=8), path.read_bytes()
    if level == "lower":
        other.held = task.held
    else:
        other.problem = task.problem
    with pytest.raises(ValueError, match="of other data"):
        other.minimize(checkpoint=path)
    assert path.read_bytes() == before


# damage -------------------------------------------------------------------------------


def _npz(**entries):
    file = io.BytesIO()
    np.savez(file, **entries)
    return file.getvalue()


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


DAMAGE = {
    "empty": lambda good: b"",
    "one byte": lambda good: good[:1],
    "half": lambda good: good[: len(good) // 2],
    "all but the last byte": lambda good: good[:-1],
    "without its head": lambda good: good[100:],
    "zeros": lambda good: bytes(len(good)),
    "zeros at the end": lambda good: good[:-4096] + bytes(4096),
    "zeros in the middle": lambda good: good[:900] + bytes(300) + good[1200:],
    "text": lambda good: b"x = 1\n" * 100,
    "an array": lambda good: _npy(np.ones(3)),
    "a pickle": lambda good: _npy(np.array([{}], dtype=object)),
    "another npz": lambda good: _npz(x=np.ones(3)),
    "another tree": lambda good: _npz(__tree__=np.frombuffer(b"[]", np.uint8)),
    "no JSON": lambda good: _npz(__tree__=np.frombuffer(b"{'", np.uint8)),
    "another format": lambda good: _npz(
        __tree__=np.frombuffer(json.dumps({"format": 99}).encode(), np.uint8)
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_and_the_one_before_is_kept(kind, tmp_path):
    whole, task, path = Task().minimize(), Task(), tmp_path / "run"
    with pytest.raises(Stopped):
        task.minimize(checkpoint=path, callback=stop_at(5))
    bad = DAMAGE[kind](path.read_bytes())
    path.write_bytes(bad)
    before = previous(path).read_bytes()
    with pytest.raises(ValueError, match="cannot be read") as caught:
        task.minimize(checkpoint=path)
    assert str(path) in str(caught.value)
    assert f"The one before it is {previous(path)}" in str(caught.value)
    assert path.read_bytes() == bad
    assert previous(path).read_bytes() == before
    previous(path).replace(path)
    assert_same(task.minimize(checkpoint=path), whole)


def test_damage_without_one_before(tmp_path):
    path = tmp_path / "run"
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match="cannot be read") as caught:
        Task().minimize(checkpoint=path)
    assert "The one before" not in str(caught.value)


def test_no_flipped_bit_is_believed(tmp_path):
    """A file with any bit flipped is refused, or reads as the same run."""
    task, path = Task(), tmp_path / "run"
    with pytest.raises(Stopped):
        task.minimize(checkpoint=path, callback=stop_at(3))
    good, rng = path.read_bytes(), np.random.default_rng(0)
    store = Store(path, 1, json.loads(_tree(good))["identity"])
    expected, refused = store.load(task.x0), 0
    for _ in range(400):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(bad))
        try:
            found = store.load(task.x0)
        except ValueError:
            refused += 1
            continue
        _assert_equal(found, expected)
    assert refused > 200


def _tree(content):
    return np.load(io.BytesIO(content))["__tree__"].tobytes()


def _assert_equal(one, other):
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        one, other = vars(one), vars(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, item in one.items():
            _assert_equal(item, other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _assert_equal(a, b)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other or (math.isnan(one) and math.isnan(other))


# the disk -----------------------------------------------------------------------------


def test_stopped_between_any_two_steps_of_writing(tmp_path, monkeypatch):
    """Writing ends before its first, second, ... operation."""
    whole, operations = Task().minimize(), []

    def limited(sound):
        def operation(*arguments, **options):
            operations.append(sound.__name__)
            if len(operations) == stop:
                raise Stopped
            return sound(*arguments, **options)

        return operation

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", limited(np.savez))
        patch.setattr(os, "fsync", limited(os.fsync))
        patch.setattr(Path, "replace", limited(Path.replace))
        for stop in range(1, 15):  # of the first three checkpoints
            operations.clear()
            path, task = tmp_path / f"run-{stop}", Task()
            with pytest.raises(Stopped):
                task.minimize(checkpoint=path)
            operations.extend([""] * 100)
            assert_same(task.minimize(checkpoint=path), whole)
        assert len({*operations}) == 4


def test_killed_between_the_renames(tmp_path):
    """The file is gone and the one before it is there: the run goes on from that."""
    whole, task, path = Task().minimize(), Task(), tmp_path / "run"
    with pytest.raises(Stopped):
        task.minimize(checkpoint=path, callback=stop_at(5))
    path.unlink()
    seen = []
    found = task.minimize(checkpoint=path, callback=lambda s: seen.append(s.record.nit))
    assert seen[0] == 4
    assert_same(found, whole)


def test_a_full_disk(tmp_path, monkeypatch):
    """The error passes; what was there is intact, and no debris stays."""
    whole, task, path = Task().minimize(), Task(), tmp_path / "run"
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            task.minimize(checkpoint=path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.old"]
    assert_same(task.minimize(checkpoint=path), whole)


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_file_that_may_not_grow(tmp_path):
    """A real short write, half way through an array: the same as a full disk."""
    code = (
        "import resource, signal, sys\n"
        "from test_checkpoint import Task\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "def limit(state):\n"
        "    if state.record.nit == 3:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "Task().minimize(checkpoint=sys.argv[1], callback=limit)\n"
    )
    path = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.old"]
    seen, whole = [], Task().minimize()
    found = Task().minimize(
        checkpoint=path, callback=lambda s: seen.append(s.record.nit)
    )
    assert seen[0] == 3
    assert_same(found, whole)


@pytest.mark.parametrize("name", ["run", "run.npz", "run.tar.gz", ".run", "ab c"])
@pytest.mark.parametrize("kind", [str, Path])
def test_any_name(name, kind, tmp_path):
    Task().minimize(checkpoint=kind(tmp_path / name), maxiter=2)
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == sorted([name, f"{name}.old"])


def test_a_name_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Task().minimize(checkpoint="run", maxiter=1)
    assert (tmp_path / "run").exists()


def test_where_nothing_can_be_written(tmp_path):
    """Said before the run, not after its first hour."""
    task = Task()
    for path, message in (
        (tmp_path / "missing" / "run", "cannot be written: .*No such file"),
        (tmp_path, "is a directory"),
        (Path("/proc/run"), "cannot be written"),
    ):
        if path.is_relative_to("/proc") and not Path("/proc").is_dir():
            continue
        with pytest.raises(ValueError, match=message):
            task.minimize(checkpoint=path)
    assert task.products == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("every", [0, -1, 1.5, None, True])
def test_wrong_every(every, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every must be"):
        Task().minimize(checkpoint=tmp_path / "run", checkpoint_every=every)


# the tree -----------------------------------------------------------------------------


def test_round_trip(xp_array, tmp_path):
    to, back = xp_array
    x = to(np.array([0.1, np.nan, -np.inf, 5e-324]))
    tree = {
        "x": x,
        "again": [x, (1, 2.5, None, True, "word", 1e-300, math.pi)],
        "status": sad.Status.CONVERGED,
        "record": sad.Solution(
            y=x, x=to(np.ones(2, np.float32)), status=sad.Status.CONVERGED, n_hvp=3
        ),
        "empty": to(np.zeros(0)),
        "words": {"a": {}, "b": []},
    }
    store = Store(tmp_path / "tree", 1, {})
    store.save(tree)
    found = store.load(x)
    assert type(found["x"]) is type(x)
    np.testing.assert_array_equal(back(found["x"]), back(x))
    assert found["again"][0] is found["x"] is found["record"].y  # stored once
    assert found["again"][1] == tree["again"][1]
    assert found["status"] is sad.Status.CONVERGED
    assert found["record"].x.dtype == tree["record"].x.dtype
    assert found["record"].n_hvp == 3
    assert found["empty"].shape == (0,)
    assert found["words"] == tree["words"]


def test_scalars_of_numpy(tmp_path):
    store = Store(tmp_path / "tree", 1, {})
    store.save([np.float32(0.1), np.True_, np.int64(7)])
    found = store.load(np.ones(1))
    assert [type(item) for item in found] == [np.float32, np.bool_, np.int64]
    assert found == [np.float32(0.1), np.True_, np.int64(7)]


def test_what_a_checkpoint_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="cannot hold a function"):
        Store(tmp_path / "tree", 1, {}).save({"f": lambda: 0})
    assert list(tmp_path.iterdir()) == []


def test_descriptions():
    import functools

    describe = checkpoints.describe
    assert describe(1e-8) == describe(np.float64(1e-8)) == "1e-08"
    assert describe(np.ones(2)) == describe(np.ones(4)[::2])
    assert describe(np.ones(2)) != describe(np.ones(2, np.float32))
    assert describe(np.ones(2)) != describe(np.array([1.0, np.nextafter(1.0, 2.0)]))
    assert describe(sad.cg) == "cg"
    partial = describe(functools.partial(sad.cg, rtol=1e-3))
    assert partial.startswith("cg")
    assert "rtol" in partial
    assert describe(object()) == describe(object())


def test_size_of_a_checkpoint(tmp_path):
    """A few vectors for the descent methods; for lbfgs a gradient an evaluation."""
    task = Task(p=2000)
    for method, most in (("gradient_descent", 24), ("maid", 24), ("lbfgs", 24 + 13)):
        path = tmp_path / method
        found = task.minimize(
            method=method, checkpoint=path, maxiter=10, on_failure="ignore"
        )
        vectors = path.stat().st_size / (8 * 2000)
        assert vectors <= most + (found.nfev - 11 if method == "lbfgs" else 0)


# killed -------------------------------------------------------------------------------

EVERY, STEPS = 2, 60


def _environment():
    folders = [str(Path(sad.__file__).parents[1]), str(Path(__file__).parent)]
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(folders)}


def _long_run(method, path=None, callback=None, seconds=0.0):
    """Some hundred products, each of them slow."""
    task = Task(method)
    task.on_product = lambda count: time.sleep(seconds)
    return task.minimize(
        tol=0.0,
        maxiter=STEPS,
        checkpoint=path,
        checkpoint_every=EVERY,
        callback=callback,
    )


def _kill_and_go_on(method, kills, folder, seed):
    path, log = folder / "run", folder / "log"
    log.touch()
    chance, landed, reports = random.Random(seed), 0, []
    while landed < kills:
        process = subprocess.Popen(
            [sys.executable, __file__, method, str(path), str(log)], env=_environment()
        )
        try:
            size = log.stat().st_size
            while log.stat().st_size == size and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.expovariate(1.0 / 0.05))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        landed += process.returncode == -signal.SIGKILL
        lines = log.read_text()[size:].split()
        reports.append([int(line) for line in lines])
        if process.returncode == 0:
            break
    assert landed == kills, "the run ended before it was killed"
    return path, reports


def _check_kills(method, kills, folder, seed):
    path, reports = _kill_and_go_on(method, kills, folder, seed)
    seen = []
    found = _long_run(method, path, lambda state: seen.append(state.record.nit))
    reports.append(seen)
    reached = -1
    for before, after in itertools.pairwise(reports):
        if before:
            reached = before[-1]
        # The step that was reported last may not have been written.
        written = (reached - 1) // EVERY * EVERY
        assert after[0] >= written + 1, reports
        assert after == list(range(after[0], after[-1] + 1))
    expected = _long_run(method)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.y, expected.y, rtol=1e-10, atol=1e-12)
    assert found.fun == pytest.approx(expected.fun, rel=1e-12)
    assert found.nit == expected.nit
    assert found.n_hvp == expected.n_hvp
    return reports, np.array_equal(found.x, expected.x)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed(tmp_path):
    _check_kills("gradient_descent", 2, tmp_path, seed=0)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@each_method
def test_killed_twenty_times(method, tmp_path):
    reports, same = _check_kills(method, 20, tmp_path, seed=METHODS.index(method))
    spans = ", ".join(f"{r[0]}-{r[-1]}" for r in reports if r)
    print(f"{method}: 20 kills, steps {spans}; the same bits: {same}")


if __name__ == "__main__":
    with Path(sys.argv[3]).open("a", buffering=1) as report:
        _long_run(
            sys.argv[1],
            sys.argv[2],
            lambda state: report.write(f"{state.record.nit}\n") and None,
            seconds=1e-3,
        )
