"""The kinds of fault that ``fault_report.py`` injects, by group.

A kind is a function of a ``Case``: it spoils the problem (before its functions are made),
one of its functions, the solution, or an option.  It raises ``Inapplicable`` where the
class has nothing of that kind to spoil.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import fault_problems as P
import numpy as np
import scipy.sparse

import sparse_argdiff as sad


class Inapplicable(Exception):
    """The class has nothing that this kind could spoil."""


class UserError(RuntimeError):
    """What a user's function raises."""


@dataclasses.dataclass
class Case:
    """One problem with one fault, and what is to be done with it."""

    name: str
    kind: str
    rng: np.random.Generator
    d: P.Definition
    truth: P.Truth
    flow: str = ""
    expect: str = "right"  # or "refuse", "no-derivative", "weak", "any-minimiser"
    form: str = "function"
    functions: dict[str, Any] = dataclasses.field(default_factory=dict)
    target: str = ""
    hits: int = 0
    exercised: bool = True
    benign: bool = False  # a sound problem: a refusal is worth a look
    ill: float = 1.0  # the factor by which the problem itself amplifies errors
    allowed: float = 1e-5
    x: Any = None
    y0: Any = None
    u: Any = None
    v: Any = None
    solve: dict[str, Any] = dataclasses.field(default_factory=dict)
    derivative: dict[str, Any] = dataclasses.field(default_factory=dict)
    adjoint: dict[str, Any] = dataclasses.field(default_factory=dict)
    tangent: dict[str, Any] = dataclasses.field(default_factory=dict)
    F: dict[str, Any] = dataclasses.field(default_factory=dict)
    minimize: dict[str, Any] = dataclasses.field(default_factory=dict)
    bring: Callable[..., Any] | None = None
    after: Callable[..., Any] | None = None
    before: Callable[..., Any] | None = None  # called with F
    walk: list = dataclasses.field(default_factory=list)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)  # of Glm
    held: dict[str, Any] = dataclasses.field(default_factory=dict)  # of held_out
    A_form: str = ""
    user_errors: list = dataclasses.field(default_factory=list)
    resets: list = dataclasses.field(default_factory=list)
    only: tuple[str, ...] = ()  # the observations that count
    length: float = 1.0  # of y, where it is not 1
    float32: bool = False
    user_mistake: bool = False  # a user's function may well raise

    @property
    def glm(self):
        return self.d.model is not None

    def needs(self, condition):
        if not condition:
            raise Inapplicable


KINDS: dict[str, tuple[str, Callable[[Case], None]]] = {}


def kind(group, *names, **options):
    """Register a kind of fault; options are passed on to the function."""

    def register(function):
        for name in names or (function.__name__.replace("_", "-"),):
            given = {"name": name} if len(names) > 1 else {}
            KINDS[name] = group, functools.partial(function, **given, **options)
        return function

    return register


# the unspoilt functions and the problem made of them --------------------------------


def functions_of(case: Case) -> dict[str, Any]:
    """Return the functions a user would write, by name."""
    d, f = case.d, case.d.f
    made: dict[str, Any] = {"value": f.value, "grad": f.grad}
    if case.form == "function" or case.glm:
        made |= {
            "hvp": lambda x, y, v: f.hess(x, y) @ v,
            "cross_jvp": lambda x, y, u: f.cross(x, y) @ u,
            "cross_vjp": lambda x, y, w: f.cross(x, y).T @ w,
        }
        if case.rng.random() < 0.5 and not case.glm:
            made["hess_diag"] = lambda x, y: np.diag(f.hess(x, y)).copy()
    else:
        shape = scipy.sparse.csr_array if case.form == "sparse" else np.asarray
        made |= {
            "hess": lambda x, y: shape(f.hess(x, y)),
            "cross": lambda x, y: shape(f.cross(x, y)),
        }
    for group, blocks in (("eq", d.equalities), ("ineq", d.inequalities)):
        for i, rows in enumerate(blocks):
            made |= _rows_of(case, f"{group}{i}.", rows, group == "eq")
    made |= {
        "upper.value": d.upper.value,
        "upper.grad_y": d.upper.grad_y,
        "upper.grad_x": d.upper.grad_x,
    }
    return made


def _rows_of(case, prefix, rows, equality):
    zero = np.zeros(case.d.n)
    if equality and rows.affine:
        return {
            f"{prefix}b": lambda x: -rows.fun(x, zero),
            f"{prefix}b_jvp": lambda x, u: -rows.jac_x(x, zero) @ u,
            f"{prefix}b_vjp": lambda x, w: -rows.jac_x(x, zero).T @ w,
        }
    made = {f"{prefix}{k}": getattr(rows, k) for k in ("fun", "jac", "jac_x")}
    if not rows.affine:
        made |= {f"{prefix}{k}": getattr(rows, k) for k in ("hess", "cross")}
    return made


class Explicit:
    """An objective of matrices."""

    def __init__(self, functions, n):
        self.value, self.grad = functions["value"], functions["grad"]
        self.hess, self.cross, self.n = functions["hess"], functions["cross"], n


class Around:
    """A linear model of which some methods are the user's own."""

    def __init__(self, glm, functions):
        self.glm, self.functions = glm, functions
        self.n, self.m, self.dtype = glm.n, glm.m, glm.dtype
        self.value, self.grad, self.scale = (
            functions["value"],
            functions["grad"],
            glm.scale,
        )

    def hess(self, x, y):
        inner = self.glm.hess(x, y)
        return sad.LinearOperator(
            inner.shape,
            lambda v: self.functions["hvp"](x, y, v),
            symmetric=True,
            diagonal=inner.diagonal,
        )

    def cross(self, x, y):
        return sad.LinearOperator(
            (self.n, self.m),
            lambda u: self.functions["cross_jvp"](x, y, u),
            lambda w: self.functions["cross_vjp"](x, y, w),
        )


def _objective(case):
    d, given = case.d, case.functions
    if case.glm:
        model = d.model
        data = {
            "features": model.features,
            "targets": model.targets,
            "sample_weight": model.weights * 3.0,
        } | case.data
        glm = sad.linear_model.Glm(
            loss=model.loss,
            intercept=model.intercept,
            penalty="scalar" if model.scalar else "per-feature",
            **data,
        )
        case.exercised |= bool(case.data)
        spoilt = case.target and "." not in case.target
        return Around(glm, given) if spoilt else glm
    if "hess" in given:
        return Explicit(given, d.n)
    names = ("value", "grad", "hvp", "cross_jvp", "cross_vjp", "hess_diag")
    return sad.FunctionObjective(**{k: given[k] for k in names if k in given}, n=d.n)


def _rows(case, prefix, rows, equality):
    given = {
        k[len(prefix) :]: v for k, v in case.functions.items() if k.startswith(prefix)
    }
    if "b" in given:
        zero = np.zeros(case.d.n)
        A = rows.jac(case.d.x, zero)
        form = case.A_form or case.rng.choice(
            ["dense", "sparse", "operator"], p=[0.6, 0.2, 0.2]
        )
        if form == "sparse":
            A = scipy.sparse.csr_array(A)
        elif form in {"operator", "changes"}:
            wrong = [0]

            def product(v, A=A):
                wrong[0] += form == "changes"
                case.hits += form == "changes"
                return (1.0 + 0.01 * wrong[0]) * (A @ v)

            A = sad.LinearOperator(A.shape, product, lambda w, A=A: A.T @ w)
        b = given.pop("b")
        return sad.LinearEquality(A, b, **given)
    kind = sad.Equality if equality else sad.Inequality
    return kind(given.pop("fun"), given.pop("jac"), **given)


def assemble(case: Case) -> tuple[Any, Any]:
    """Return the problem and the upper objective as a user would state them."""
    d = case.d
    equality = [_rows(case, f"eq{i}.", r, True) for i, r in enumerate(d.equalities)]
    inequality = [
        _rows(case, f"ineq{i}.", r, False) for i, r in enumerate(d.inequalities)
    ]
    problem = sad.Problem(
        _objective(case),
        equality=equality,
        inequality=inequality,
        lower=d.low,
        upper=d.high,
        maximize=d.maximize,
    )
    given = case.functions
    if isinstance(d.upper, P.HeldOut) and not case.target.startswith("upper."):
        held = {"features": d.upper.features, "targets": d.upper.targets} | case.held
        glm = getattr(problem.objective, "glm", problem.objective)
        upper = glm.held_out(held.pop("features"), held.pop("targets"), **held)
    else:
        upper = sad.FunctionUpper(
            given["upper.value"], given["upper.grad_y"], given["upper.grad_x"]
        )
    if d.barrier is not None:
        problem = sad.LogBarrier(problem, d.barrier)
    return problem, upper


# faults of functions ----------------------------------------------------------------

_SCALAR = {"value", "upper.value"}
_MATRIX = ("hess", "cross", ".jac", ".jac_x", ".hess", ".cross")


def _is_matrix(name):
    return name in _MATRIX[:2] or name.endswith(_MATRIX[2:])


def _pick(case, wanted=lambda name: True):
    """Choose the function to spoil, and a flow that calls it."""
    names = [k for k in case.functions if wanted(k)]
    case.needs(names)
    case.target = str(case.rng.choice(names))
    if case.target.startswith("upper."):
        case.flow = str(case.rng.choice(["call", "evaluate"]))
    elif case.flow == "bring" and case.target == "value":
        case.flow = "solve"
    return case.target


def _plain(out):
    return out.toarray() if scipy.sparse.issparse(out) else out


def _wrap(case, change, target=None):
    """Replace the target by what ``change(k, out, arguments)`` makes of its result."""
    name = target or case.target
    inner, calls = case.functions[name], [0]

    def spoilt(*arguments):
        calls[0] += 1
        try:
            out = _plain(inner(*arguments))
            bad = change(calls[0], out, arguments)
        except Exception as error:
            case.user_errors.append(error)
            raise
        case.hits += _differs(out, bad)
        return bad

    def reset():
        calls[0] = 0

    case.resets.append(reset)
    case.functions[name] = spoilt


def _differs(out, bad):
    if out is bad or type(out) is not type(bad):
        return out is not bad
    a, b = np.asarray(out), np.asarray(bad)
    return a.dtype != b.dtype or a.shape != b.shape or not np.array_equal(a, b)


_SHAPES = {
    "short": lambda a: a[:-1],
    "long": lambda a: np.concatenate([a, a[:1]]),
    "column": lambda a: a[:, None],
    "row": lambda a: a[None],
    "zerod": lambda a: np.asarray(a.ravel()[0] if a.size else 0.0),
    "empty": lambda a: a[:0],
}


@kind("function", *_SHAPES)
def _shape(case, name):
    _pick(case, lambda k: k not in _SCALAR)

    def change(k, out, arguments):
        return _SHAPES[name](np.asarray(out))

    _wrap(case, change)


def _masked_one(a):
    mask = np.zeros(np.shape(a), dtype=bool)
    if mask.size:
        mask.flat[0] = True
    return np.ma.array(a, mask=mask)


def _strided(a):
    wide = np.empty((*np.shape(a), 2))
    wide[..., 0] = a
    return wide[..., 0]


def _locked(a):
    a = np.array(a)
    a.flags.writeable = False
    return a


_TYPES = {
    "float16": lambda a: np.asarray(a, dtype=np.float16),
    "float32": lambda a: np.asarray(a, dtype=np.float32),
    "int": lambda a: np.asarray(np.round(a)).astype(int),
    "bool": lambda a: np.asarray(a) != 0.0,
    "complex": lambda a: np.asarray(a, dtype=complex),
    "complex-im": lambda a: np.asarray(a) + 0.1j,
    "object": lambda a: np.asarray(a, dtype=object),
    "string": lambda a: np.asarray(a).astype(str),
    "longdouble": lambda a: np.asarray(a, dtype=np.longdouble),
    "bigendian": lambda a: np.asarray(a).astype(">f8"),
    "list": lambda a: np.asarray(a).tolist(),
    "tuple": lambda a: tuple(np.atleast_1d(a).tolist()),
    "none": lambda a: None,
    "masked": np.ma.array,
    "masked-one": _masked_one,
    "matrix": lambda a: np.asmatrix(np.atleast_1d(a)),
    "sparse": lambda a: scipy.sparse.csr_matrix(np.atleast_2d(a)),
    "strided": _strided,
    "reversed": lambda a: np.ascontiguousarray(np.asarray(a)[..., ::-1])[..., ::-1],
    "readonly": _locked,
}


@kind("function", *_TYPES)
def _type(case, name):
    arrays = name in {"strided", "reversed", "readonly", "sparse"}
    _pick(case, lambda k: not (arrays and k in _SCALAR))

    def change(k, out, arguments):
        bad = _TYPES[name](out)
        case.hits += arrays or name == "bigendian"
        return bad

    _wrap(case, change)
    if name == "float32":
        case.allowed = 1e-3
    case.benign = name in {"strided", "reversed", "readonly"}


def _entry(a):
    a = np.array(a, dtype=float)
    if a.size:
        a.flat[0] += 0.1 * (1.0 + abs(a.flat[0]))
    return a if a.ndim else float(a)


def _noise(case, a, relative):
    r = case.rng.standard_normal(np.shape(a))
    return a * (1.0 + 1e-3 * r) if relative else a + 1e-6 * r


_VALUES = {
    "entry": lambda c, k, a: _entry(a),
    "sign": lambda c, k, a: -1.0 * a,
    "factor-1.1": lambda c, k, a: 1.1 * a,
    "factor-1.001": lambda c, k, a: 1.001 * a,
    "half": lambda c, k, a: 0.5 * a,
    "double": lambda c, k, a: 2.0 * a,
    "offset": lambda c, k, a: a + 0.1,
    "drift": lambda c, k, a: a * (1.0 + 1e-2 * k),
    "noise": lambda c, k, a: _noise(c, a, True),
    "noise-add": lambda c, k, a: _noise(c, a, False),
    "zero-always": lambda c, k, a: 0.0 * a,
    "nan-always": lambda c, k, a: math.nan * a,
}


@kind("function", *_VALUES)
def _value(case, name):
    # A constraint moved by a constant is another constraint, as good.
    moved = name in {"offset", "entry"}
    _pick(case, lambda k: not (moved and k.endswith((".fun", ".b"))))
    if name == "offset" and case.target in _SCALAR:
        case.only = ("y", "jvp", "vjp", "gradient")
    if name == "noise-add":
        case.allowed = 1e-4
    _wrap(case, lambda k, out, arguments: _VALUES[name](case, k, out))


_PARTS = {
    "nan": lambda a: a * math.nan,
    "inf": lambda a: a + math.inf,
    "zero": lambda a: 0.0 * a,
    "big": lambda a: 1e12 * a + 1e6,
    "nan-one": lambda a: _one(a, math.nan),
    "inf-one": lambda a: _one(a, -math.inf),
}


def _one(a, value):
    a = np.array(a, dtype=float)
    if a.size:
        a.flat[-1] = value
    return a if a.ndim else float(a)


_ASKED_ONCE = (
    "cross",
    "jac_x",
    "b_jvp",
    "b_vjp",
    "upper.grad_x",
    "upper.grad_y",
    "upper.value",
    "hess",
    "hess_diag",
    "value",
)


def _is_asked_once(name):
    return any(w in name for w in _ASKED_ONCE)


@kind("function", *(f"{what}-{when}" for what in _PARTS for when in ("call", "after")))
def _at_call(case, name):
    what, _, when = name.rpartition("-")
    lie = what in {"zero", "big"}
    once = _is_asked_once
    # A finite lie told once, by a function that is asked once, cannot be seen.
    _pick(case, lambda k: not (lie and when == "call" and once(k)))
    at = int(case.rng.choice([1, 1, 2, 3, 4, 6, 10]))
    at = 1 if lie and once(case.target) else at

    def change(k, out, arguments):
        return _PARTS[what](out) if (k >= at if when == "after" else k == at) else out

    _wrap(case, change)


@kind("function")
def lag(case):
    """Return the result of the call before."""
    _pick(case, lambda k: not _is_asked_once(k))
    last = [None]

    def change(k, out, arguments):
        bad = out if k == 1 else last[0]
        last[0] = out
        return bad

    _wrap(case, change)


@kind("function")
def buffer(case):
    """Return one array again and again, overwritten."""
    _pick(case, lambda k: k not in _SCALAR)
    case.benign, kept = True, {}

    def change(k, out, arguments):
        out = np.asarray(out)
        into = kept.setdefault(out.shape, np.empty(out.shape))
        into[...] = out
        case.hits += k > 1
        return into

    _wrap(case, change)


@kind("function", "mutate-x", "mutate-y", "mutate-last")
def _mutate(case, name):
    """Write into an argument after the result is computed."""
    which = {"mutate-x": 0, "mutate-y": 1, "mutate-last": -1}[name]
    _pick(case, lambda k: which != 1 or not k.split(".")[-1].startswith("b"))

    def change(k, out, arguments):
        out = np.array(out) if np.ndim(out) else out
        arguments[which][...] = 0.5 * arguments[which] - 0.1
        case.hits += 1
        return out

    _wrap(case, change)
    case.benign = True


_RAISES = {
    "raise": UserError,
    "raise-value": ValueError,
    "raise-type": TypeError,
    "raise-linalg": np.linalg.LinAlgError,
    "raise-stop": StopIteration,
    "raise-zerodiv": ZeroDivisionError,
    "raise-notimpl": NotImplementedError,
    "raise-index": IndexError,
    "raise-attribute": AttributeError,
    "raise-floating": FloatingPointError,
    "raise-assert": AssertionError,
}


@kind("function", *_RAISES)
def _raise(case, name):
    _pick(case)
    at = int(case.rng.choice([1, 1, 2, 3, 5, 9]))

    def change(k, out, arguments):
        if k >= at:
            case.hits += 1
            raise _RAISES[name]("a user's own error")
        return out

    _wrap(case, change)


@kind("function")
def warn(case):
    _pick(case)
    case.benign = True

    def change(k, out, arguments):
        warnings.warn("a user's own warning", UserWarning, stacklevel=2)
        case.hits += 1
        return out

    _wrap(case, change)


_PRODUCTS = {"hvp", "hess"}


@kind(
    "function",
    "nonsym-1",
    "nonsym-1e-3",
    "nonsym-1e-6",
    "indefinite-hvp",
    "hvp-changes",
    "nonsym-skew",
)
def _product(case, name):
    _pick(case, lambda k: k in _PRODUCTS)
    n = case.d.n
    S = case.rng.standard_normal((n, n)) / math.sqrt(n)
    if name == "nonsym-skew":
        S = 0.3 * (S - S.T)
    case.exercised = n > 1
    z = S[0] / np.linalg.norm(S[0])
    level = {"nonsym-1": 1.0, "nonsym-1e-3": 1e-3, "nonsym-1e-6": 1e-6}.get(name, 1.0)
    H = case.d.f.hess(case.d.x, case.truth.y)
    size = level * np.linalg.norm(H, 2)
    if name == "indefinite-hvp":
        S, size = -np.outer(z, z) * np.sign(np.trace(H)), 3.0 * size

    def change(k, out, arguments):
        if name == "hvp-changes":
            return out * (1.0 + 0.01 * case.rng.standard_normal())
        right = arguments[2] if len(arguments) == 3 else np.eye(n)
        return out + size * (S @ right)

    _wrap(case, change)


@kind("function")
def ill_nonsym(case):
    """Make a Hessian of condition 1e4 not symmetric by 1e-7."""
    case.needs(isinstance(case.d.f, P.Polynomial) and not case.d.stationary)
    case.needs(case.name in {"explicit", "function"})
    d = case.d
    f = P.Polynomial(P.spd(case.rng, d.n, 1e4), d.f.B, d.f.c)
    case.d = d.replace(f=f)
    case.truth = P.truth(case.d)
    case.functions = functions_of(case)
    _pick(case, lambda k: k in _PRODUCTS)
    S = case.rng.standard_normal((d.n, d.n)) * 1e-7 * 1e4

    def change(k, out, arguments):
        right = arguments[2] if len(arguments) == 3 else np.eye(d.n)
        return out + S @ right

    _wrap(case, change)


@kind(
    "function",
    "no-value",
    "no-hvp",
    "no-hess-diag",
    "missing-jac_x",
    "missing-hess",
    "missing-cross",
    "missing-cross_jvp",
    "missing-cross_vjp",
)
def _missing(case, name):
    what = name.partition("-")[2].replace("hess-diag", "hess_diag")
    if name in {"missing-jac_x", "missing-hess", "missing-cross"}:
        names = [k for k in case.functions if k.endswith("." + what)]
    else:
        case.needs(case.form == "function" and not case.glm)
        names = [k for k in case.functions if k == what]
    case.needs(names)
    case.target = str(case.rng.choice(names))
    del case.functions[case.target]
    case.benign = name.startswith("no-")
    case.hits = 1
    if name == "no-hvp":
        case.allowed = 1e-4


@kind("function")
def value_offset(case):
    """Add a large constant to the value."""
    _pick(case, lambda k: k in _SCALAR)
    case.benign = True
    case.only = ("y", "jvp", "vjp", "gradient")
    _wrap(case, lambda k, out, arguments: out + 1e4)


@kind("function")
def nan_far(case):
    """Let a function be NaN beyond twice the distance of the start from the solution."""
    _pick(case, lambda k: k in {"value", "grad"})
    y0 = case.d.y0 if case.d.y0 is not None else np.zeros(case.d.n)
    far = 1.5 * np.linalg.norm(case.truth.y - y0) + 0.1
    y = case.truth.y

    def change(k, out, arguments):
        return out * math.nan if np.linalg.norm(arguments[1] - y) > far else out

    _wrap(case, change)
    case.benign = True


# faults of the problem --------------------------------------------------------------


def _redo(case, d, **changes):
    """Set another definition and its truth."""
    near = None
    if not d.convex:
        near = case.truth.y
        if d.units is not None and d.simpler is case.d:
            near = d.units.D * near + d.units.s
    case.d = d
    case.truth = P.truth(d, near)
    for name, value in changes.items():
        setattr(case, name, value)


def _decades(case, low, high):
    sign = case.rng.choice([-1.0, 1.0])
    return 10.0 ** (sign * case.rng.uniform(low, high))


@kind(
    "problem",
    "shift",
    "scale-f",
    "scale-y",
    "scale-x",
    "scale-rows",
    "scale-mixed",
    "scale-one-row",
    "zero-solution",
    "scale-all",
)
def _units(case, name):
    case.needs(not case.glm)
    d, rng = case.d, case.rng
    n = d.n
    units = P.Units(np.ones(n), np.zeros(n), np.ones(d.x.size))
    if name == "shift":
        units.s = rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(0.0, 6.0)
    elif name == "zero-solution":
        units.s = -case.truth.y
    if name in {"scale-f", "scale-all"}:
        units.c = _decades(case, 3.0, 12.0)
    if name == "scale-y":
        units.D = np.full(n, _decades(case, 2.0, 8.0))
    elif name in {"scale-mixed", "scale-all"}:
        units.D = 10.0 ** rng.uniform(-4.0, 4.0, n)
    if name in {"scale-x", "scale-all"}:
        units.E = 10.0 ** rng.uniform(-4.0, 4.0, d.x.size)
    if name == "scale-rows":
        case.needs(d.equalities or d.inequalities)
        case.needs(d.barrier is None)
        units.R = _decades(case, 3.0, 10.0)
    case.needs(not (d.barrier is not None and name == "scale-f"))
    if d.barrier is not None:  # t f − Σ log: rows and y may change units, f not
        units.c, units.R = 1.0, 1.0
        case.only = (
            "y",
            "jvp",
            "vjp",
            "F",
            "gradient",
        )  # the value moves by a constant
    if name == "scale-one-row":
        case.needs(len(d.equalities) == 1 and d.equalities[0].affine)
        size = d.equalities[0].b0.size
        case.needs(size > 1)
        units.R = np.ones(size)
        units.R[0] = _decades(case, 3.0, 10.0)
        case.needs(not d.inequalities)
    case.benign = True
    _redo(case, d.moved(units))


def _linear_rows(case):
    rows = [r for r in case.d.equalities if isinstance(r, P.Linear)]
    case.needs(rows)
    return rows[0]


def _with(case, d, simpler, **changes):
    _redo(case, d.replace(simpler=simpler, units=None), **changes)


@kind(
    "problem",
    "dup-rows",
    "zero-row",
    "dependent-rows",
    "scaled-dup-row",
    "too-many-rows",
    "empty-rows",
    "eq-and-ineq",
    "eq-twice-as-ineq",
)
def _redundant(case, name):
    d, rng = case.d, case.rng
    m = d.x.size
    if name in {"zero-row", "empty-rows"}:
        p = int(name == "zero-row")
        case.needs(not case.d.inequalities or d.barrier is None)
        extra = P.Linear(np.zeros((p, d.n)), np.zeros(p), np.zeros((p, m)))
        case.A_form = "dense"
        _with(case, d.replace(equalities=[*d.equalities, extra]), d, benign=True)
        return
    old = _linear_rows(case)
    rest = [r for r in d.equalities if r is not old]
    if name in {"eq-and-ineq", "eq-twice-as-ineq"}:
        more = [old]
        if name == "eq-twice-as-ineq":
            more = [
                P.Linear(
                    np.vstack([old.A, -old.A]),
                    np.r_[old.b0, -old.b0],
                    np.vstack([old.D, -old.D]),
                )
            ]
            changed = d.replace(equalities=rest, inequalities=[*d.inequalities, *more])
        else:
            changed = d.replace(inequalities=[*d.inequalities, *more])
        _with(case, changed, d, benign=True)
        return
    p = old.b0.size
    W = {
        "dup-rows": np.eye(p)[:1],
        "scaled-dup-row": -3.0 * np.eye(p)[-1:],
        "dependent-rows": rng.standard_normal((1, p)),
        "too-many-rows": rng.standard_normal((d.n, p)),
    }[name]
    W = np.vstack([np.eye(p), W])
    rows = P.Linear(W @ old.A, W @ old.b0, W @ old.D)
    _with(case, d.replace(equalities=[rows, *rest]), d, benign=True)


@kind("problem", "dup-rows-moving", "infeasible-eq", "infeasible-eq-slightly")
def _contradiction(case, name):
    d, rng, old = case.d, case.rng, _linear_rows(case)
    rest = [r for r in d.equalities if r is not old]
    i = int(rng.integers(old.b0.size))
    D, b0 = old.D[i].copy(), old.b0[i]
    if name == "dup-rows-moving":
        change = rng.standard_normal(d.x.size)
        D, b0 = D + change, b0 - change @ d.x
    else:
        size = 1.0 if name == "infeasible-eq" else 1e-3
        b0 = b0 + size * rng.choice([-1.0, 1.0])
    rows = P.Linear(
        np.vstack([old.A, old.A[i]]), np.r_[old.b0, b0], np.vstack([old.D, D])
    )
    if name != "dup-rows-moving":
        case.flow = case.flow.replace("bring", "solve")
    expect = "no-derivative" if name == "dup-rows-moving" else "refuse"
    _with(case, d.replace(equalities=[rows, *rest]), d, expect=expect)


@kind("problem")
def near_dup_rows(case):
    """Repeat a row turned by 1e-8, consistent: well posed only as another row."""
    d, rng, old = case.d, case.rng, _linear_rows(case)
    case.needs(old.b0.size + 1 + len(d.equalities) < d.n)
    rest = [r for r in d.equalities if r is not old]
    r = rng.standard_normal(d.n)
    b, size = r @ case.truth.y, 10.0 ** rng.uniform(-10.0, -5.0)
    m = d.x.size
    turned = P.Linear(
        np.vstack([old.A, old.A[0] + size * r]),
        np.r_[old.b0, old.b0[0] + size * b],
        np.vstack([old.D, old.D[0]]),
    )
    other = P.Linear(r[None], np.array([b]), np.zeros((1, m)))
    simpler = d.replace(equalities=[*d.equalities, other])
    _with(case, d.replace(equalities=[turned, *rest]), simpler, ill=1.0 / size)


@kind("problem", "opposite-rows", "opposite-rows-stacked")
def _opposite(case, name):
    """Give a row a'y = b as two inequalities."""
    d, rng = case.d, case.rng
    case.needs(d.barrier is None and d.convex and not case.glm)
    m = d.x.size
    a, D = rng.standard_normal((1, d.n)), 0.3 * rng.standard_normal((1, m))
    b0 = a @ (case.truth.y + 0.05 * rng.standard_normal(d.n)) - D @ d.x
    row = P.Linear(a, b0, D)
    pair = [P.Linear(np.vstack([a, -a]), np.r_[b0, -b0], np.vstack([D, -D]))]
    if name == "opposite-rows":
        pair = [P.Linear(a, b0, D), P.Linear(-a, -b0, -D)]
    changed = d.replace(inequalities=[*d.inequalities, *pair])
    simpler = d.replace(equalities=[*d.equalities, row])
    _with(case, changed, simpler, benign=True)


@kind("problem", "dup-ineq", "redundant-ineq", "bound-and-ineq", "zero-ineq")
def _redundant_inequality(case, name):
    d, rng = case.d, case.rng
    case.needs(d.barrier is None and not case.glm)
    m = d.x.size
    if name == "zero-ineq":
        extra = P.Linear(np.zeros((1, d.n)), np.ones(1), np.zeros((1, m)))
    elif name == "bound-and-ineq":
        low, _ = d.bounds
        (held,) = np.nonzero(np.isfinite(low))
        case.needs(held.size)
        i = held[np.argmin((case.truth.y - low)[held])]
        e = np.eye(d.n)[i : i + 1]
        extra = P.Linear(-e, -low[i : i + 1], np.zeros((1, m)))
    elif name == "dup-ineq":
        case.needs(d.inequalities)
        extra = d.inequalities[0]
    else:
        a = rng.standard_normal((1, d.n))
        extra = P.Linear(a, a @ case.truth.y + 5.0, np.zeros((1, m)))
    changed = d.replace(inequalities=[*d.inequalities, extra])
    _with(case, changed, d, benign=True)


@kind(
    "problem",
    "infeasible-ineq",
    "infeasible-bounds",
    "reverse-bounds",
    "nan-bounds",
    "inf-bounds-wrong",
    "infeasible-mixed",
    "infeasible-slightly",
)
def _infeasible(case, name):
    d, rng = case.d, case.rng
    m, y = d.x.size, case.truth.y
    a = rng.standard_normal((1, d.n))
    case.expect, zero = "refuse", np.zeros((1, m))
    case.flow = case.flow.replace("bring", "solve")
    if name in {"reverse-bounds", "nan-bounds", "inf-bounds-wrong"}:
        low, high = (b.copy() for b in d.bounds)
        low[0], high[0] = {
            "reverse-bounds": (1.0, 0.0),
            "nan-bounds": (math.nan, 1.0),
            "inf-bounds-wrong": (math.inf, math.inf),
        }[name]
        case.d = d.replace(low=low, high=high)
        return
    case.needs(d.barrier is None)
    if name == "infeasible-bounds":
        high = np.minimum(d.bounds[1], y + 1.0)
        extra = P.Linear(-np.ones((1, d.n)), -np.array([high.sum() + 0.5]), zero)
        case.d = d.replace(high=high, inequalities=[*d.inequalities, extra])
        return
    gap = 1e-3 if name == "infeasible-slightly" else 1.0
    b = a @ y
    if name == "infeasible-mixed":
        eq = P.Linear(a, b + gap, zero)
        case.needs(len(d.equalities) + 1 < d.n)
        extra = P.Linear(a, b, zero)
        changed = d.replace(equalities=[*d.equalities, eq])
    else:
        changed = d
        extra = P.Linear(np.vstack([a, -a]), np.r_[b, -b - gap], np.zeros((2, m)))
    case.d = changed.replace(inequalities=[*d.inequalities, extra])


@kind("problem", "fixed-bound", "all-fixed", "inf-bounds-mixed")
def _fixed(case, name):
    d, rng = case.d, case.rng
    case.needs(d.barrier is None and d.convex)
    low, high = (b.copy() for b in d.bounds)
    m, y = d.x.size, case.truth.y
    if name == "inf-bounds-mixed":
        low[rng.random(d.n) < 0.5] = -np.inf
        high[rng.random(d.n) < 0.5] = np.inf
        _redo(case, d.replace(low=low, high=high), benign=True)
        return
    if name == "all-fixed":
        case.needs(not d.equalities and not d.inequalities)
        index = np.arange(d.n)
    else:
        case.needs(d.n - sum(r.fun(d.x, y).size for r in d.equalities) > 1)
        index = rng.integers(d.n, size=1)
    at = np.clip(y + 0.1, low, high)[index]
    low[index] = high[index] = at
    free_low, free_high = low.copy(), high.copy()
    free_low[index], free_high[index] = -np.inf, np.inf
    row = P.Linear(np.eye(d.n)[index], at, np.zeros((index.size, m)))
    simpler = d.replace(low=free_low, high=free_high, equalities=[*d.equalities, row])
    _with(case, d.replace(low=low, high=high), simpler, benign=True)


@kind("problem")
def licq_square(case):
    """Give as many equality rows as variables."""
    d, rng = case.d, case.rng
    case.needs(case.name == "lineq")
    A = rng.standard_normal((d.n, d.n)) + 2.0 * np.eye(d.n)
    D = rng.standard_normal((d.n, d.x.size))
    rows = P.Linear(A, rng.standard_normal(d.n), D)
    _redo(case, d.replace(equalities=[rows]), benign=True)


@kind("problem")
def concave_rows(case):
    """Keep y out of a ball: not convex."""
    d, rng = case.d, case.rng
    case.needs(case.name in {"ineq", "function", "explicit"})
    n, m = d.n, d.x.size
    centre = case.truth.y + 0.1 * rng.standard_normal(n)
    rows = P.Quadratic(
        -np.eye(n)[None],
        centre[None],
        np.zeros(1),
        0.2 * rng.standard_normal((1, m)),
        np.zeros((1, n, m)),
    )
    start = centre + rng.standard_normal(n)
    rows.b0 = rows.fun(d.x, centre + 0.5 * (start - centre))
    case.d = d.replace(inequalities=[rows], convex=False, y0=start)


def _direction(case):
    """Return a unit vector along which no constraint stops y, and the definition."""
    d, rng = case.d, case.rng
    case.needs(not case.glm and d.convex)
    rows = [*d.equalities, *d.inequalities]
    case.needs(all(isinstance(r, P.Linear) for r in rows))
    if d.low is not None or d.high is not None:
        case.needs(not rows and d.barrier is None)
        i = int(rng.integers(d.n))
        low, high = (b.copy() for b in d.bounds)
        low[i], high[i] = -np.inf, np.inf
        return np.eye(d.n)[i], d.replace(low=low, high=high)
    z = rng.standard_normal(d.n)
    if rows:
        A = np.vstack([r.A for r in rows])
        case.needs(A.shape[0] < d.n)
        z -= np.linalg.pinv(A) @ (A @ z)
    return z / np.linalg.norm(z), d


def _changed(d, z, phi, size=1e-7):
    f = P.Negative(d.f) if d.maximize else d.f
    f = P.Along(f, z, phi, size)
    return d.replace(f=P.Negative(f) if d.maximize else f)


@kind(
    "problem",
    "unbounded-linear",
    "unbounded-exp",
    "flat",
    "flat-range",
    "near-singular",
    "saddle-start",
    "two-minima",
)
def _along(case, name):
    z, d = _direction(case)
    rng = case.rng
    phi = {
        "unbounded-linear": "falls",
        "unbounded-exp": "exp",
        "flat": "zero",
        "flat-range": "zero",
        "near-singular": "slight",
    }.get(name, "double")
    size = 10.0 ** rng.uniform(-9.0, -3.0)
    changed = _changed(d, z, phi, size)
    if name.startswith("unbounded"):
        case.d, case.expect = changed, "refuse"
        case.flow = case.flow.replace("bring", "solve")
        return
    if phi == "zero":
        row = P.Linear(z[None], np.zeros(1), np.zeros((1, d.x.size)))
        simpler = d.replace(equalities=[*d.equalities, row])
        if name == "flat-range":
            upper = d.upper
            P_ = np.eye(d.n) - np.outer(z, z)
            changed = changed.replace(
                upper=P.LeastSquaresUpper(upper.W @ P_, upper.t, upper.r, upper.x0)
            )
            case.v = P_ @ case.v
            case.only = ("vjp", "gradient", "F")
            case.flow = str(rng.choice(["adjoint", "call"]))
            _with(case, changed, simpler)
        else:
            _with(case, changed, simpler, expect="no-derivative", only=("jvp", "vjp"))
        return
    if phi == "slight":
        _redo(case, changed, ill=1.0 / size)
        return
    case.needs(d.barrier is None)
    if name == "two-minima":
        case.d = changed.replace(convex=False, y0=case.truth.y + z)
        return
    # On the saddle: the solution of the problem with z'y = 0.
    row = P.Linear(z[None], np.zeros(1), np.zeros((1, d.x.size)))
    saddle = P.truth(d.replace(equalities=[*d.equalities, row])).y
    case.d = changed.replace(convex=False, y0=saddle)
    case.y0 = saddle


@kind("problem")
def maximum_start(case):
    """Start at a maximum of a double well in every direction."""
    d, rng = case.d, case.rng
    case.needs(not case.glm and d.barrier is None and not d.equalities)
    case.needs(not d.inequalities and d.low is None and not d.stationary)
    n, m = d.n, d.x.size
    B = rng.standard_normal((n, m))
    f = P.Polynomial(-P.spd(rng, n, 3.0), B, -B @ d.x, 1.0)
    f = P.Negative(f) if d.maximize else f
    case.d = d.replace(f=f, convex=False, y0=np.zeros(n))
    case.y0 = np.zeros(n)


@kind("problem", "weak-bound", "weak-row", "weak-nearly")
def _weak(case, name):
    d, rng = case.d, case.rng
    case.needs(d.barrier is None and d.convex and not d.simpler)
    y, m = case.truth.y, d.x.size
    off = 10.0 ** rng.uniform(-11.0, -7.0) if name == "weak-nearly" else 0.0
    if name == "weak-row":
        case.needs(not case.glm)
        a, D = rng.standard_normal((1, d.n)), rng.standard_normal((1, m))
        rows = P.Linear(a, a @ y - D @ d.x, D)
        changed = d.replace(inequalities=[*d.inequalities, rows])
    else:
        low, high = (b.copy() for b in d.bounds)
        (free,) = (
            np.nonzero(~case.truth.fixed)
            if case.truth.fixed.size
            else (np.arange(d.n),)
        )
        case.needs(free.size)
        i = int(rng.choice(free))
        if rng.random() < 0.5:
            low[i] = y[i] - off
            high[i] = max(high[i], low[i] + 1.0)
        else:
            high[i] = y[i] + off
            low[i] = min(low[i], high[i] - 1.0)
        changed = d.replace(low=low, high=high)
    _redo(case, changed)
    if off > 0.0:  # within the tolerance or not, one side is the derivative
        case.needs(not case.truth.fixed[i])  # else the truth is too coarse for the gap
        case.truth.weak = False
    case.expect = "weak" if case.truth.weak else "right"


@kind("problem", "huge-x", "tiny-x")
def _size_of_x(case, name):
    d, rng = case.d, case.rng
    case.needs(not case.glm and d.convex and d.barrier is None)
    case.needs(not d.inequalities and d.low is None)
    f = P.Polynomial(
        P.spd(rng, d.n), rng.standard_normal((d.n, d.x.size)), np.zeros(d.n)
    )
    x = d.x * 10.0 ** (rng.uniform(4, 10) * (1 if name == "huge-x" else -1))
    changed = d.replace(f=P.Negative(f) if d.maximize else f, x=x)
    for rows in changed.equalities:
        if isinstance(rows, P.Linear):
            rows.b0 = np.zeros_like(rows.b0)
    case.length = float(np.abs(x).max())
    _redo(case, changed, benign=True)


@kind("problem")
def float32_all(case):
    """Compute everything in float32."""
    case.needs(not case.glm)
    case.float32, case.allowed = True, 5e-3
    case.benign = True


# data of linear models


def _data(case, **data):
    case.data |= data
    case.hits = 1


def _features(case):
    case.needs(case.glm)
    return case.d.model.features.copy()


_FEATURE_KINDS = {
    "features-nan": lambda F, r: _one(F, math.nan),
    "features-inf": lambda F, r: _one(F, math.inf),
    "features-float16": lambda F, r: F.astype(np.float16),
    "features-float32": lambda F, r: F.astype(np.float32),
    "features-int": lambda F, r: F.round().astype(int),
    "features-complex": lambda F, r: F + 0j,
    "features-object": lambda F, r: F.astype(object),
    "features-string": lambda F, r: F.astype(str),
    "features-masked": lambda F, r: np.ma.array(F),
    "features-masked-one": lambda F, r: _masked_one(F),
    "features-matrix": lambda F, r: np.asmatrix(F),
    "features-list": lambda F, r: F.tolist(),
    "features-1d": lambda F, r: F[:, 0],
    "features-3d": lambda F, r: F[:, :, None],
    "features-short": lambda F, r: F[:-1],
    "features-fortran": lambda F, r: np.asfortranarray(F),
    "features-bigendian": lambda F, r: F.astype(">f8"),
    "features-csr": lambda F, r: scipy.sparse.csr_array(F),
    "features-csc": lambda F, r: scipy.sparse.csc_matrix(F),
    "features-coo": lambda F, r: scipy.sparse.coo_array(F),
    "features-sparse-nan": lambda F, r: scipy.sparse.csr_array(_one(F, math.nan)),
    "features-operator": lambda F, r: sad.LinearOperator(
        F.shape, lambda v: F @ v, lambda w: F.T @ w, dtype=np.float64
    ),
}
_SAME = {
    "fortran",
    "csr",
    "csc",
    "coo",
    "operator",
    "list",
    "masked",
    "float32",
    "matrix",
    "bigendian",
}


@kind("data", *_FEATURE_KINDS)
def _feature_kind(case, name):
    F, what = _features(case), name.partition("-")[2]
    _data(case, features=_FEATURE_KINDS[name](F, case.rng))
    case.needs(not (what == "operator" and case.d.model.loss == "multinomial"))
    if what == "int":
        model = P.MeanLoss(
            case.d.model.loss,
            F.round(),
            case.d.model.targets,
            case.d.model.weights,
            case.d.model.intercept,
            case.d.model.scalar,
        )
        _redo(case, case.d.replace(f=model, model=model))
    case.benign = what in _SAME
    case.allowed = 5e-3 if what == "float32" else 1e-5
    case.expect = "right" if what in {*_SAME, "int"} else "refuse"


_TARGET_KINDS = {
    "targets-nan": lambda t: _one(t, math.nan),
    "targets-masked": np.ma.array,
    "targets-masked-one": _masked_one,
    "targets-column": lambda t: t[:, None],
    "targets-short": lambda t: t[:-1],
    "targets-string": lambda t: t.astype(str),
    "targets-object": lambda t: t.astype(object),
    "targets-complex": lambda t: t + 0j,
    "targets-none": lambda t: None,
    "targets-list": lambda t: t.tolist(),
    "targets-matrix": np.asmatrix,
    "weights-nan": lambda t: _one(np.ones(t.size), math.nan),
    "weights-negative": lambda t: _one(np.ones(t.size), -1.0),
    "weights-zero": lambda t: np.zeros(t.size),
    "weights-masked-one": lambda t: _masked_one(np.ones(t.size)),
    "weights-complex": lambda t: np.ones(t.size) + 0.1j,
    "weights-short": lambda t: np.ones(t.size - 1),
    "weights-column": lambda t: np.ones((t.size, 1)),
    "weights-string": lambda t: np.full(t.size, "1"),
}


@kind("data", *_TARGET_KINDS)
def _target_kind(case, name):
    _features(case)
    what = "targets" if name.startswith("targets") else "sample_weight"
    _data(case, **{what: _TARGET_KINDS[name](case.d.model.targets)})
    # A column of the squared loss is a model of one target: the same one.
    column = name == "targets-column" and case.d.model.loss == "squared"
    benign = column or name in {"targets-list", "targets-masked"}
    case.benign, case.expect = benign, "right" if benign else "refuse"


def _remodel(case, F, t, w, *, refused=False, x=None):
    """Set the model of other data, and its truth where there is one."""
    model = case.d.model
    made = P.MeanLoss(model.loss, F, t, w, model.intercept, model.scalar)
    case.needs(made.n == case.d.n)
    d = case.d.replace(f=made, model=made, x=case.d.x if x is None else x)
    if refused:
        case.d, case.expect = d, "refuse"
    else:
        _redo(case, d)


@kind("problem", "one-class", "empty-class", "separable")
def _classes(case, name):
    F, model, rng = _features(case), case.d.model, case.rng
    t, loss = model.targets.copy(), model.loss
    case.needs(not case.d.equalities and case.d.low is None)
    if name == "one-class":
        case.needs(loss in {"logistic", "poisson"} and model.intercept)
        t[:] = 1.0 if loss == "logistic" and rng.random() < 0.5 else 0.0
        _remodel(case, F, t, model.weights, refused=True)
    elif name == "empty-class":
        case.needs(loss == "multinomial" and model.intercept)
        t[t == 1.0] = 2.0
        _remodel(case, F, t, model.weights, refused=True)
    else:
        case.needs(loss in {"logistic", "multinomial"})
        t = 1.0 * (F[:, 0] > np.median(F[:, 0]))
        if loss == "multinomial":
            t += 1.0 * (F[:, 0] > np.quantile(F[:, 0], 0.75))
        case.needs(np.unique(t).size == (2 if loss == "logistic" else 3))
        x = np.full_like(case.d.x, rng.uniform(-30.0, -8.0))
        _remodel(case, F, t, model.weights, x=x)


@kind("data", "labels-signed", "labels-wrong")
def _labels(case, name):
    _features(case)
    t, loss = case.d.model.targets, case.d.model.loss
    if name == "labels-signed":
        case.needs(loss == "logistic")
        _data(case, targets=2.0 * t - 1.0)
        case.benign = True
        return
    case.needs(loss in {"logistic", "multinomial", "poisson"})
    wrong = {"logistic": t + 1.0, "multinomial": t + 0.5, "poisson": t - 10.0}
    _data(case, targets=wrong[loss])
    case.expect = "refuse"


@kind(
    "problem",
    "zero-feature",
    "dup-features",
    "zero-weight",
    "column-offset",
    "many-features",
)
def _columns(case, name):
    F, model, rng = _features(case), case.d.model, case.rng
    t, w = model.targets.copy(), model.weights.copy()
    if name == "zero-feature":
        F[:, -1] = 0.0
    elif name == "dup-features":
        F[:, -1] = F[:, 0]
    elif name == "zero-weight":
        w[:2], F[:2] = 0.0, 1e6 * F[:2]
    elif name == "many-features":
        F = rng.standard_normal((6, F.shape[1]))
        t, w = t[-6:], w[-6:]
        case.needs(model.loss != "multinomial" or np.unique(t).size == 3)
    else:
        case.needs(model.loss in {"squared", "huber", "logistic"})
        F[:, 0] += 10.0 ** rng.uniform(1.0, 4.0)
        case.benign = True
    _remodel(case, F, t, w)


@kind("problem", "column-units", "columns-mixed")
def _column_units(case, name):
    """Scale features, and shift the log-penalties with them: the same problem."""
    F, model, rng = _features(case), case.d.model, case.rng
    case.needs(not model.scalar and not case.d.equalities and case.d.low is None)
    s = np.ones(F.shape[1])
    s[0] = 10.0 ** rng.uniform(-10.0, 10.0)
    if name == "columns-mixed":
        s = 10.0 ** rng.uniform(-5.0, 5.0, s.size)
    D = np.concatenate([np.repeat(1.0 / s, model.K), np.ones(model.n - model.p)])
    scaled = P.MeanLoss(
        model.loss,
        F * s,
        model.targets,
        model.weights,
        model.intercept,
        model.scalar,
    )
    moved = case.d.moved(P.Units(D, 0.0, 1.0, -2.0 * np.log(s)))
    _redo(case, moved.replace(f=scaled, model=scaled), benign=True)


_HELD_KINDS = {
    "held-nan": lambda F, t: {"features": _one(F, math.nan)},
    "held-targets-nan": lambda F, t: {"targets": _one(t, math.nan)},
    "held-columns": lambda F, t: {"features": F[:, :-1]},
    "held-short": lambda F, t: {"targets": t[:-1]},
    "held-empty": lambda F, t: {"features": F[:0], "targets": t[:0]},
    "held-masked-one": lambda F, t: {"features": _masked_one(F)},
    "held-targets-masked-one": lambda F, t: {"targets": _masked_one(t)},
    "held-matrix": lambda F, t: {"features": np.asmatrix(F)},
    "held-float16": lambda F, t: {"features": F.astype(np.float16)},
    "held-float32": lambda F, t: {"features": F.astype(np.float32)},
    "held-complex": lambda F, t: {"features": F + 0.1j},
    "held-object": lambda F, t: {"targets": t.astype(object)},
    "held-weights-nan": lambda F, t: {"sample_weight": _one(np.ones(t.size), math.nan)},
    "held-weights-zero": lambda F, t: {"sample_weight": np.zeros(t.size)},
    "held-csr": lambda F, t: {"features": scipy.sparse.csr_array(F)},
    "held-unseen": lambda F, t: {"targets": t + 5.0},
}


@kind("data", *_HELD_KINDS)
def _held_kind(case, name):
    case.needs(isinstance(case.d.upper, P.HeldOut))
    case.needs(name != "held-unseen" or case.d.model.loss == "multinomial")
    case.held = _HELD_KINDS[name](case.d.upper.features, case.d.upper.targets)
    case.flow = str(case.rng.choice(["call", "evaluate"]))
    case.benign = name in {"held-csr", "held-float32"}
    case.expect = "right" if case.benign else "refuse"
    case.allowed = 5e-3 if name == "held-float32" else 1e-5


# faults of the arguments ------------------------------------------------------------

_ARGUMENTS = {
    "nan": lambda a: _one(a, math.nan),
    "inf": lambda a: _one(a, math.inf),
    "int": lambda a: np.asarray(a).round().astype(int),
    "short": lambda a: a[:-1],
    "long": lambda a: np.append(a, 0.0),
    "2d": lambda a: a[None],
    "column": lambda a: a[:, None],
    "complex": lambda a: a + 0j,
    "complex-im": lambda a: a + 0.1j,
    "object": lambda a: a.astype(object),
    "string": lambda a: "abc",
    "none": lambda a: None,
    "number": lambda a: 1.0,
    "float16": lambda a: a.astype(np.float16),
    "bool": lambda a: a > 0.0,
    "masked": np.ma.array,
    "masked-one": _masked_one,
    "matrix": np.asmatrix,
    "list": lambda a: a.tolist(),
    "readonly": _locked,
    "strided": _strided,
    "bigendian": lambda a: a.astype(">f8"),
}
_GOOD = {"readonly", "strided"}


@kind("solver", *(f"{a}-{b}" for a in ("x", "y0", "v", "u") for b in _ARGUMENTS))
def _argument(case, name):
    which, _, what = name.partition("-")
    change = _ARGUMENTS[what]
    if which == "y0":
        case.flow = str(case.rng.choice(["solve", "call"]))
        start = case.d.y0 if case.d.y0 is not None else np.zeros(case.d.n)
        case.y0 = change(start)
        case.needs(what != "none")
    elif which == "x":
        case.flow = str(case.rng.choice(["solve", "call", "evaluate", "bring"]))
        case.x = change(case.d.x)
    else:
        case.flow = str(case.rng.choice(["products", "solve"]))
        setattr(case, which, change(getattr(case, which)))
        case.only = ("jvp",) if which == "u" else ("vjp",)
    case.benign = what in _GOOD
    # Integers, matrices, ... may be taken as the numbers they are: right, or refused.
    never = {"nan", "inf", "short", "long", "masked-one", "string", "none"}
    if which == "x":
        never |= {"int", "bool", "float16", "number", "complex-im"}
    if what in never and name != "y0-masked-one":
        case.expect = "refuse"
    case.user_mistake = which == "x" and what in {"short", "long"}


@kind("solver", "v-huge", "v-tiny", "v-zero", "u-huge", "u-tiny", "u-zero")
def _sized(case, name):
    which, _, what = name.partition("-")
    factor = {"huge": 1e200, "tiny": 1e-200, "zero": 0.0}[what]
    setattr(case, which, factor * getattr(case, which))
    case.flow = str(case.rng.choice(["products", "solve"]))
    case.benign = True


@kind("solver", "y0-far", "y0-huge", "y0-extreme", "y0-float32", "y0-solution")
def _start(case, name):
    case.needs(case.d.barrier is None and case.d.convex)
    n, rng = case.d.n, case.rng
    r = rng.standard_normal(n)
    y0 = {
        "y0-far": 1e3 * r,
        "y0-huge": 1e6 * r,
        "y0-extreme": 1e12 * r,
        "y0-float32": r.astype(np.float32),
        "y0-solution": case.truth.y.copy(),
    }[name]
    case.y0 = y0
    case.flow = str(rng.choice(["solve", "products", "call"]))
    case.benign = name != "y0-extreme"
    if name == "y0-float32":
        case.allowed = 5e-3


@kind("solver", "A-operator", "A-sparse", "A-changes")
def _operator(case, name):
    case.needs(any(k.endswith(".b") for k in case.functions))
    case.A_form = name.partition("-")[2]
    case.benign = case.A_form != "changes"
    if case.A_form != "changes":
        case.hits = 1
    else:
        case.exercised = False


def _M(case, name, n):
    rng = case.rng
    diag = {
        "M-indefinite": np.where(np.arange(n) % 2, -1.0, 1.0),
        "M-zero": np.zeros(n),
        "M-nan": np.full(n, math.nan),
        "M-negative": -np.ones(n),
        "M-scale": np.full(n, 1e8),
        "M-inf": np.full(n, math.inf),
        "M-skewed": 10.0 ** rng.uniform(-6, 6, n),
    }
    if name in diag:
        return np.diag(diag[name])
    if name == "M-float32":
        return np.eye(n, dtype=np.float32)
    if name == "M-int":
        return np.eye(n, dtype=int)
    if name == "M-complex":
        return np.eye(n) * (1.0 + 0j)
    if name == "M-nonsym":
        return np.eye(n) + np.triu(rng.standard_normal((n, n)), 1)
    if name == "M-shape":
        return np.eye(n + 1)
    if name in {"M-string", "M-number", "M-list"}:
        return {"M-string": "jacobi", "M-number": 3.0, "M-list": [1.0] * n}[name]

    def product(v):
        case.hits += 1
        if name == "M-raises":
            error = UserError("a user's own error")
            case.user_errors.append(error)
            raise error
        return v * (1.0 + 0.1 * rng.standard_normal())

    if name == "M-function-bad":

        def nothing(K):
            case.hits += 1

        return nothing
    return sad.LinearOperator((n, n), product, product, positive_definite=True)


@kind(
    "solver",
    "M-indefinite",
    "M-zero",
    "M-nan",
    "M-negative",
    "M-scale",
    "M-inf",
    "M-skewed",
    "M-float32",
    "M-int",
    "M-complex",
    "M-nonsym",
    "M-shape",
    "M-string",
    "M-number",
    "M-list",
    "M-noise",
    "M-raises",
    "M-function-bad",
)
def _preconditioner(case, name):
    d, t = case.d, case.truth
    case.needs(d.barrier is None)
    n = d.n
    if d.low is not None or d.inequalities or d.equalities:
        n = int(np.sum(~t.fixed)) if t.fixed.size else n
        n += sum(r.fun(d.x, t.y).size for r in d.equalities) + int(np.sum(t.strong))
    case.derivative["M"] = _M(case, name, n)
    plain = d.low is None and not d.inequalities and not d.equalities
    case.flow = str(case.rng.choice(["products", "bring", *["solve"] * plain]))
    if plain and not d.stationary and case.flow != "bring":
        case.solve["M"] = case.derivative["M"]
    if name in {"M-noise", "M-raises", "M-function-bad"}:
        case.exercised = False


@kind(
    "solver", "maxiter-0", "maxiter-1", "maxiter-2", "maxiter-derivative", "maxiter-bad"
)
def _maxiter(case, name):
    case.flow = str(case.rng.choice(["solve", "products", "call"]))
    if name == "maxiter-derivative":
        case.derivative["maxiter"] = case.F["adjoint_maxiter"] = 1
        return
    bad = [-1, 1.5, math.nan, "3", math.inf, None, 2.0]
    k = bad[case.rng.integers(len(bad))] if name == "maxiter-bad" else int(name[-1])
    case.solve["maxiter"] = case.F["maxiter"] = k


@kind(
    "solver",
    "tol-tiny",
    "tol-zero",
    "tol-huge",
    "tol-loose",
    "tol-bad",
    "rtol-bad",
    "rtol-loose",
    "rtol-zero",
)
def _tolerance(case, name):
    rng = case.rng
    case.flow = str(rng.choice(["solve", "products", "call", "evaluate"]))
    bad = [math.nan, -1.0, math.inf, "1e-8", None, 1j, np.ones(2)]
    value: Any = {
        "tiny": 10.0 ** rng.uniform(-300, -13),
        "zero": 0.0,
        "huge": rng.uniform(1, 1e3),
        "loose": 10.0 ** rng.uniform(-4, -1),
        "bad": bad[rng.integers(len(bad))],
    }[name.partition("-")[2]]
    if name.startswith("tol"):
        case.solve["tol"] = case.F["tol"] = value
    if name.startswith("rtol") or name in {"tol-loose", "tol-huge"}:
        case.derivative["rtol"] = case.F["adjoint_tol"] = value
    if name in {"tol-huge", "tol-loose", "rtol-loose"}:
        case.allowed = 100.0 * value
    if name == "tol-bad":
        case.expect = "refuse"
    elif name == "rtol-bad" and value is not None:
        case.expect, case.only = "refuse", ("jvp", "vjp", "gradient")


@kind(
    "solver",
    "method-bad",
    "method-number",
    "method-cg",
    "method-minres",
    "method-projected_cg",
    "method-raises",
    "method-wrong-x",
    "method-lies",
    "method-returns-array",
)
def _method(case, name):
    rng = case.rng
    what = name.partition("-")[2]
    case.flow = str(rng.choice(["products", "solve"]))
    if what in {"cg", "minres", "projected_cg", "bad", "number"}:
        if rng.random() < 0.5 and what in {"bad", "number"}:
            case.solve["method"] = "bogus" if what == "bad" else 5
        else:
            case.derivative["method"] = {"bad": "bogus", "number": 5}.get(what, what)
        case.expect = "refuse" if what in {"bad", "number"} else "right"
        case.only = ("jvp", "vjp") if what in {"bad", "number"} else ()
        return
    inside = dict(case.solve)

    def method(problem, x, y0, tol):
        case.hits += 1
        if what == "raises":
            error = UserError("a user's own error")
            case.user_errors.append(error)
            raise error
        if what == "returns-array":
            return np.array(y0)
        found = sad.solve(problem, x, y0, tol=tol, **inside)
        if what == "wrong-x":
            return sad.Solution(y=found.y, x=x + 1.0)
        off = 10.0 ** rng.uniform(-4, -1) * rng.standard_normal(found.y.size)
        return sad.Solution(y=found.y + off, x=x)

    case.solve = {"method": method}
    case.F["solver"] = method


@kind(
    "solver",
    "callback-stops",
    "callback-raises",
    "callback-stopiteration",
    "callback-writes",
    "callback-returns-array",
    "callback-number",
)
def _callback(case, name):
    what = name.partition("-")[2]
    at = int(case.rng.integers(0, 3))
    calls = [0]

    def callback(iterate):
        calls[0] += 1
        if what == "writes":
            for value in vars(iterate).values() if hasattr(iterate, "__dict__") else ():
                if isinstance(value, np.ndarray) and value.flags.writeable:
                    value[...] = 0.0
                    case.hits += 1
            return None
        if calls[0] <= at:
            return None
        case.hits += 1
        if what == "stops":
            return True
        if what == "returns-array":
            return np.ones(3)
        error = UserError("own") if what == "raises" else StopIteration()
        case.user_errors.append(error)
        raise error

    case.solve["callback"] = 3 if what == "number" else callback
    if what == "number":
        case.expect = "refuse"
    case.exercised = what == "number"
    case.flow = "solve"


@kind("solver", "ignore", "warn-only", "on_failure-bad")
def _on_failure(case, name):
    case.flow = str(case.rng.choice(["solve", "products", "call"]))
    how = {"ignore": "ignore", "warn-only": "warn", "on_failure-bad": "explode"}[name]
    case.solve["on_failure"] = case.derivative["on_failure"] = how
    case.F["on_failure"] = how
    if name == "on_failure-bad":
        case.expect = "refuse"
        return
    # ``derivative`` has no record, so that "ignore" is asked of vjp and jvp alone.
    case.flow = "products" if name == "ignore" else case.flow
    if case.rng.random() < 0.5:
        case.solve["maxiter"] = case.F["maxiter"] = 1
    else:
        case.derivative["maxiter"] = case.F["adjoint_maxiter"] = 1


@kind(
    "solver",
    "adjoint0-nan",
    "adjoint0-huge",
    "adjoint0-random",
    "adjoint0-short",
    "adjoint0-block",
    "adjoint0-int",
    "tangent0-nan",
    "tangent0-huge",
    "tangent0-short",
)
def _warm(case, name):
    which, what = name.split("-")
    d, rng = case.d, case.rng
    case.needs(d.barrier is None)
    N = d.n + sum(
        r.fun(d.x, case.truth.y).size for r in (*d.equalities, *d.inequalities)
    )
    r = rng.standard_normal(N)
    value = {
        "nan": r * math.nan,
        "huge": 1e30 * r,
        "random": r,
        "short": r[:-1],
        "block": rng.standard_normal((N, 2)),
        "int": np.ones(N, dtype=int),
    }[what]
    (case.adjoint if which == "adjoint0" else case.tangent)[which] = value
    case.flow = "products"
    case.only = ("vjp",) if which == "adjoint0" else ("jvp",)
    if what in {"short", "int"}:
        case.expect = "refuse"
    case.benign = what in {"huge", "random", "block"}


@kind(
    "solver",
    "stationarity-bad",
    "warm-y-nan",
    "warm-y-far",
    "warm-y-short",
    "warm-adjoint-nan",
    "warm-adjoint-far",
)
def _state(case, name):
    rng = case.rng
    if name == "stationarity-bad":
        bad = [math.nan, -1.0, "x", None]
        case.derivative["stationarity"] = bad[rng.integers(len(bad))]
        case.flow, case.expect = "bring", "refuse"
        return
    case.needs(case.d.barrier is None and case.d.convex)
    case.flow = "call"

    def before(F, x):
        if name.startswith("warm-y"):
            F.y = {
                "nan": np.full(case.d.n, math.nan),
                "short": np.zeros(case.d.n - 1),
                "far": 1e3 * rng.standard_normal(case.d.n),
            }[name.split("-")[2]]
            return
        F(x)
        bad = F.adjoint * math.nan if name.endswith("nan") else 1e12 * F.adjoint + 1.0
        F.state = dataclasses.replace(F.state, adjoints=(bad,))

    case.before = before


# faults of the solution ---------------------------------------------------------------


def _brought(case, make):
    case.flow, case.bring = "bring", make


@kind(
    "solution",
    "y-off-1e-7",
    "y-off-1e-5",
    "y-off-1e-4",
    "y-off-1e-3",
    "y-off-1e-2",
    "y-off-flat",
    "y-outside",
    "y-off-within",
)
def _off(case, name):
    d, rng, y = case.d, case.rng, case.truth.y
    r = rng.standard_normal(d.n)
    size = 10.0 ** rng.uniform(-7.0, -2.0)
    if name == "y-off-flat":
        r = np.linalg.eigh(d.regular().f.hess(d.x, y))[1][:, 0]
    elif name == "y-off-within":
        C = np.vstack([np.zeros((0, d.n)), *(g.jac(d.x, y) for g in d.equalities)])
        case.needs(len(C))
        r -= np.linalg.pinv(C) @ (C @ r)
    elif name == "y-outside":
        case.needs(
            d.equalities or np.any(case.truth.strong) or np.any(case.truth.fixed)
        )
        size = 0.1
    else:
        size = float(name[6:])
    off = size * r / np.linalg.norm(r) * (1.0 + np.linalg.norm(y))
    if name == "y-outside":
        case.expect = "refuse"
    _brought(case, lambda y, x: sad.Solution(y=y + off, x=x))


@kind(
    "solution",
    "y-nan",
    "y-int",
    "y-short",
    "y-list",
    "y-float32",
    "y-2d",
    "y-object",
    "y-masked-one",
    "y-complex",
)
def _solution_type(case, name):
    what = name[2:]
    change = _ARGUMENTS.get(what, lambda a: a.astype(np.float32))
    _brought(case, lambda y, x: sad.Solution(y=change(y), x=x))
    if what in {"list", "float32"}:
        case.allowed = 5e-3
        case.benign = what == "list"
    elif what == "2d":
        pass
    else:
        case.expect = "refuse"


@kind(
    "solution",
    "active-all",
    "active-none",
    "active-flipped",
    "active-short",
    "active-int",
    "active-none-status",
)
def _active(case, name):
    d, t = case.d, case.truth
    q = sum(r.fun(d.x, t.y).size for r in d.inequalities)
    case.needs((d.low is not None or q) and d.barrier is None)
    strong = t.strong.copy() if q else np.zeros(0, bool)
    fixed = t.fixed.copy() if t.fixed.size else np.zeros(d.n, bool)
    none = np.zeros(q, bool), np.zeros(d.n, bool)
    if name == "active-all":
        bad = np.ones(q, bool), np.isfinite(d.bounds[0]) | np.isfinite(d.bounds[1])
    elif name.startswith("active-none"):
        bad = none
    elif name == "active-short":
        bad = strong, fixed[:-1]
        case.expect = "refuse"
    elif name == "active-int":
        bad = strong.astype(int), fixed.astype(int)
    else:
        both = np.concatenate([strong, fixed])
        i = int(case.rng.integers(both.size))
        both[i] ^= True
        bad = both[:q], both[q:]
    case.exercised = name in {"active-short", "active-int"} or not (
        np.array_equal(bad[0], strong) and np.array_equal(bad[1], fixed)
    )
    status = sad.Status.CONVERGED if name.endswith("status") else None
    active = sad.ActiveSet(bad[0], none[0], bad[1], none[1])

    def make(y, x):
        multipliers = t.multipliers if status is not None else None
        return sad.Solution(
            y=y, x=x, active=active, multipliers=multipliers, status=status
        )

    _brought(case, make)


@kind(
    "solution",
    "multiplier-sign",
    "multiplier-size",
    "multiplier-nan",
    "multiplier-short",
    "multiplier-off",
    "multiplier-zero",
    "multiplier-int",
)
def _multiplier(case, name):
    t, rng = case.truth, case.rng
    case.needs(t.multipliers.size and case.d.barrier is None)
    case.needs(np.any(t.multipliers != 0.0))
    what = name.partition("-")[2]
    lam = t.multipliers
    off = 10.0 ** rng.uniform(-6.0, -1.0) * rng.standard_normal(lam.size)
    bad = {
        "sign": -lam,
        "size": 1.5 * lam,
        "nan": lam * math.nan,
        "short": lam[:-1],
        "off": lam * (1.0 + off),
        "zero": 0.0 * lam,
        "int": lam.round().astype(int),
    }[what]
    if what in {"nan", "short", "int"}:
        case.expect = "refuse"
    _brought(case, lambda y, x: sad.Solution(y=y, x=x, multipliers=bad))


@kind(
    "solution",
    "other-x",
    "other-x-slightly",
    "other-x-believed",
    "status-failed",
    "believed-far",
)
def _stale(case, name):
    rng = case.rng
    d = rng.standard_normal(case.d.x.size)
    size = {"other-x-slightly": 10.0 ** rng.uniform(-6.0, -3.0)}.get(name, 0.3)

    def make(y, x):
        if name == "status-failed":
            return sad.Solution(y=y, x=x, status=sad.Status.ITERATION_LIMIT)
        if name == "believed-far":
            off = 0.1 * (1.0 + np.abs(y).max()) * rng.standard_normal(y.size)
            return sad.Solution(y=y + off, x=x, status=sad.Status.CONVERGED)
        if name == "other-x-believed":
            problem, _ = assemble(case)
            start = case.d.y0 if case.d.y0 is not None else y
            found = sad.solve(problem, x + size * d, start, **case.solve)
            return dataclasses.replace(found, x=x)
        near = case.d.replace(x=x + size * d)
        found = P.truth(near, None if near.convex else y)
        return sad.Solution(y=found.y, x=x)

    _brought(case, make)
    if name in {"status-failed", "believed-far"}:
        case.expect = "refuse"


@kind("solution", "free-in-bounded", "barrier-in-problem", "other-problem")
def _foreign(case, name):
    d = case.d
    case.needs(d.barrier is None and (d.low is not None or d.inequalities) and d.convex)
    case.needs(np.any(case.truth.fixed) or np.any(case.truth.strong))

    def make(y, x):
        problem, _ = assemble(case)
        if name == "barrier-in-problem":
            case.needs(problem.equalities is None)
            inside = sad.solve(problem, x, method="barrier").y
            return sad.solve(sad.LogBarrier(problem, 10.0), x, _strictly(d, inside))
        free = sad.Problem(problem.objective, maximize=d.maximize)
        found = sad.solve(free, x)
        if name == "other-problem":
            return dataclasses.replace(found, status=None)
        return found

    _brought(case, make)


def _strictly(d, y):
    """Return a point strictly inside the bounds near y."""
    low, high = d.bounds
    gap = np.where(np.isfinite(high - low), high - low, 1.0)
    return np.clip(y, low + 1e-3 * gap, high - 1e-3 * gap)


@kind(
    "solution",
    "y-written",
    "x-written",
    "multipliers-written",
    "x-given-written",
    "direction-written",
)
def _written(case, name):
    """Write into the caller's arrays after ``derivative``."""
    case.flow, case.benign = str(case.rng.choice(["solve", "bring"])), True

    def after(solution, x, u, v):
        array = {
            "y-written": solution.y,
            "x-written": solution.x,
            "multipliers-written": solution.multipliers,
            "x-given-written": x,
            "direction-written": u,
        }[name]
        case.needs(array is not None and array.size)
        if array.flags.writeable:
            array[...] = 0.25 * array + 3.0
        case.hits += 1

    case.exercised, case.after = False, after


# sequences ----------------------------------------------------------------------------


@kind(
    "sequence",
    "walk",
    "jumps",
    "repeat",
    "walk-in-place",
    "walk-value-first",
    "walk-loose-then-tight",
    "walk-cold",
    "walk-evaluate",
)
def _walk(case, name):
    d, rng = case.d, case.rng
    case.needs(case.d.convex)
    step = {"jumps": 2.0}.get(name, 0.2)
    points, x = [], d.x
    for _ in range(5):
        points.append(x)
        if name != "repeat":
            x = x + step * rng.standard_normal(x.size)
    case.walk, case.flow, case.benign = points, name, True
    if name == "walk-cold":
        case.F["warm_start"] = False


@kind(
    "sequence",
    *(
        f"minimize-{m}{b}"
        for m in ("maid", "hoag", "hoag_quadratic", "gradient_descent", "lbfgs")
        for b in ("", "-bounds")
    ),
)
def _minimize(case, name):
    case.needs(case.d.convex)
    parts = name.split("-")
    case.flow, case.benign = "minimize", True
    case.minimize = {"method": parts[1], "maxiter": 60}
    if case.d.barrier is None and not case.d.inequalities and case.rng.random() < 0.6:
        _redo(
            case, case.d.replace(x=case.d.x + case.rng.standard_normal(case.d.x.size))
        )
        case.x = case.d.x.copy()
    if len(parts) > 2:
        case.minimize["bounds"] = (case.d.x - 0.5, case.d.x + 0.5)


# the kinds that are no fault ------------------------------------------------------------


@kind("none", "nothing")
def _nothing(case):
    case.benign = True
