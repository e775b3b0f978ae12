"""A fault campaign: spoil one thing at a time, and see what the package says.

    python benchmarks/fault_report.py [--seed 0] [--cases 2400] [--only KIND/CLASS]
                                      [--case I] [--verbose] [--refused]
                                      [--part 0 --parts 3]

Each case is a small random problem of a class (``fault_problems``), its solution by
dense linear algebra, and one fault of a kind (``fault_kinds``).  The verdicts:

RIGHT    y, value and derivative are right to max(1e-5, 100 tol), or the user's own
         functions are wrong but consistent, and ``check_derivatives`` or
         ``check_hypergradient`` says so;
HONEST   an exception raised on purpose (by a ``raise`` of the package, or the user's own), a
         status, or a warning;
FOREIGN  any other exception;
SILENT   a wrong number that nothing was said about;
HANG     more than 30 s of processor time;
inert    the fault was never reached: it proves nothing, and is not counted.

A wrong number that the problem's own condition explains is "amplified" and not counted.
"Refused" counts those of HONEST whose problem is sound.  Each SILENT, FOREIGN and HANG is
printed as one line, and ``--case I`` with the same seed runs it again.  The exit status
is 1 if there is any.
"""

from __future__ import annotations

import argparse
import contextlib
import dis
import itertools
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import fault_problems as P
import numpy as np
from fault_kinds import KINDS, Case, Inapplicable, assemble, functions_of

import sparse_argdiff as sad

PACKAGE = str(Path(sad.__file__).parent)
HERE = str(Path(P.__file__).parent)
DOCUMENTED = (TypeError, ValueError, NotImplementedError, sad.ConvergenceError)
SHARES = {
    "function": 0.30,
    "problem": 0.27,
    "data": 0.08,
    "solution": 0.10,
    "solver": 0.17,
    "sequence": 0.07,
    "none": 0.01,
}
LIMIT = 30


class Hang(BaseException):
    """A case took too long."""


# what was seen ------------------------------------------------------------------------


class Seen:
    """The numbers, exceptions and caveats of one case."""

    def __init__(self, case):
        self.case = case
        self.errors: dict[str, float] = {}
        self.raised: list[Exception] = []
        self.told: list[str] = []
        self.truths: dict[bytes, P.Truth | None] = {}

    def attempt(self, function, *arguments, **options):
        """Return what the function returns; None where it raised, which is kept."""
        try:
            return function(*arguments, **options)
        except Inapplicable:
            raise
        except Exception as error:  # noqa: BLE001  (judged later)
            self.raised.append(error)
            return None

    def tell(self, record):
        """Note the status and the warnings of a record."""
        status = getattr(record, "status", None)
        if isinstance(status, sad.Status) and not status.acceptable:
            self.told.append(status.name)
        self.told += [str(text) for text in getattr(record, "warnings", ())]
        for part in ("solution", "adjoint", "krylov"):
            if hasattr(record, part):
                self.tell(getattr(record, part))

    def truth_at(self, x, y):
        """Return the truth at x: of a problem that is not convex the one near y."""
        case = self.case
        same = x is case.d.x or np.array_equal(x, case.d.x)
        if case.d.convex and same:
            return case.truth
        if not P.np.all(np.isfinite(y)) and not case.d.convex:
            return None
        d = case.d.replace(x=np.asarray(x, dtype=float))
        near = not d.convex or d.barrier is not None
        try:
            with np.errstate(all="ignore"):
                return P.truth(d, np.asarray(y, dtype=float) if near else None)
        except (P.NoTruth, np.linalg.LinAlgError):
            return None

    def note(self, name, got, truth, direction=None):
        """Keep the relative error of a result, the largest under its name."""
        case = self.case
        if case.only and name not in case.only:
            return
        error = np.inf
        if case.expect in {"refuse", "no-derivative"}:
            if case.expect == "refuse" or name not in {"y", "value", "F"}:
                self.errors[name] = np.inf
            return
        if truth is not None:
            if direction is not None:
                wide = complex if np.iscomplexobj(direction) else float
                direction = np.asarray(direction).astype(wide)
            with np.errstate(all="ignore"):
                error = relative_error(case, name, got, truth, direction)
        elif case.d.convex:  # nothing is known
            return
        self.errors[name] = max(error, self.errors.get(name, 0.0))


def relative_error(case, name, got, truth, direction):
    """Return the error in natural units, relative to the size of the truth."""
    u, n, m = case.d.units, case.d.n, case.d.x.size
    D = np.ones(n) if u is None else u.D
    E = np.ones(m) if u is None else np.ones(m) * u.E
    s, c = (0.0, 1.0) if u is None else (u.s, u.c)
    J = truth.J / D[:, None] / E
    size = np.abs(J).max(initial=0.0)
    sides = [truth.J, *truth.sides] if truth.weak else [truth.J]
    if name == "y":
        right, unit, least = [truth.y], D, case.length + np.abs((truth.y - s) / D).max()
    elif name == "value":
        right, unit, least = (
            [truth.value],
            abs(c),
            case.length**2 + abs(truth.value / c),
        )
    elif name == "F":
        right, unit, least = [truth.F], 1.0, 1.0 + abs(truth.F)
    elif name == "jvp":
        right, unit = [side @ direction for side in sides], D
        least = 1e-3 * size * np.abs(direction * E).max(initial=0.0)
    elif name == "vjp":
        right, unit = [side.T @ direction for side in sides], E
        least = 1e-3 * size * np.abs(direction * D).max(initial=0.0)
    else:
        right, unit = [truth.dF], E
        least = 0.1 * truth.terms
    got = np.asarray(got)
    got = got.astype(complex if np.iscomplexobj(got) else float)
    if got.shape != np.shape(right[0]):
        return np.inf
    found = []
    for one in right:
        scale = np.abs(one / unit).max(initial=0.0)
        if name not in {"y", "value", "F"} and (direction is None or np.any(direction)):
            least = max(
                least, 1e-9 * np.abs(direction).max() if direction is not None else 0
            )
        scale = (
            max(least, scale)
            if name in {"y", "value", "F"}
            else max(scale, least, 1e-290)
        )
        error = np.abs((got - one) / unit).max(initial=0.0) / scale
        found.append(np.inf if np.isnan(error) else float(error))
    return min(found)


# what is done ---------------------------------------------------------------------------


def start_of(case):
    return case.y0 if case.y0 is not None else case.d.y0


def products(case, seen, problem, solution, truth):
    """Take products with the derivative, by operator or by ``jvp`` and ``vjp``."""
    u, v, options = case.u, case.v, case.derivative
    if case.flow == "products":
        tangent = seen.attempt(
            sad.jvp, problem, solution, _copied(u), **case.tangent, **options
        )
        if tangent is not None:
            seen.tell(tangent)
            seen.note("jvp", tangent.y, truth, u)
        adjoint = seen.attempt(
            sad.vjp, problem, solution, _copied(v), **case.adjoint, **options
        )
        if adjoint is not None:
            seen.tell(adjoint)
            seen.note("vjp", adjoint.x, truth, v)
        return
    J = seen.attempt(sad.derivative, problem, solution, **options)
    if J is None:
        return
    if case.after is not None:
        case.after(solution, case.x, u.copy(), v)
    seen.told += [J.note] if getattr(J, "note", "") else []
    blocks = KINDS[case.kind][0] != "solver"
    if case.flow != "adjoint":
        _product(seen, lambda: J, "jvp", u, truth, blocks)
    _product(seen, lambda: J.T, "vjp", v, truth, blocks)


def _copied(argument):
    """Copy an array: a user's function may write into it."""
    return argument.copy() if isinstance(argument, np.ndarray) else argument


def _product(seen, J, name, direction, truth, blocks):
    """Note the product with a vector, and with a block of two columns."""
    product = seen.attempt(lambda: J() @ _copied(direction))
    if product is not None:
        seen.note(name, product, truth, direction)
    if blocks:
        other = direction[::-1].copy()
        if seen.case.only == ("vjp", "gradient", "F"):  # within a subspace
            other = -2.0 * direction
        block = seen.attempt(lambda: J() @ np.stack([direction, other], axis=1))
        if block is not None:
            seen.note(name, block[:, 0], truth, direction)
            seen.note(name, block[:, 1], truth, other)


def flow_solve(case, seen, problem, upper):
    solution = seen.attempt(sad.solve, problem, case.x, start_of(case), **case.solve)
    if solution is None:
        return
    seen.tell(solution)
    truth = seen.truth_at(case.d.x, solution.y)
    seen.note("y", solution.y, truth)
    if solution.value is not None:
        seen.note("value", solution.value, truth)
    if truth is None:
        return
    products(case, seen, problem, solution, truth)


def flow_bring(case, seen, problem, upper):
    y = case.truth.y.copy()
    if case.float32:
        y = y.astype(np.float32)
    make = case.bring or (lambda y, x: sad.Solution(y=y, x=x))
    solution = seen.attempt(make, y, case.x)
    if solution is not None:
        products(case, seen, problem, solution, case.truth)


def flow_call(case, seen, problem, upper):
    F = seen.attempt(sad.Hypergradient, problem, upper, y0=start_of(case), **case.F)
    if F is None:
        return
    if case.before is not None:
        seen.attempt(case.before, F, case.d.x)
    for point in case.walk or [case.x, case.x]:
        x = point
        if case.flow == "walk-in-place":
            x = case.x
            x[...] = point
        if case.flow == "walk-value-first":
            seen.attempt(F.value, x)
        if case.flow == "walk-loose-then-tight":
            seen.attempt(F.evaluate, x, tol=1e-2, adjoint_tol=1e-2)
        record = None
        if case.flow in {"evaluate", "walk-evaluate"}:
            record = seen.attempt(F.evaluate, x)
            found = None if record is None else (record.value, record.gradient)
        else:
            found = seen.attempt(F, x)
        if found is None:
            continue
        if record is not None:
            seen.tell(record)
        at = x if case.walk else case.d.x
        y = record.solution.y if record is not None else F.y
        truth = seen.truth_at(at, y)
        seen.note("F", found[0], truth)
        seen.note("gradient", found[1], truth)


def flow_minimize(case, seen, problem, upper):
    options = case.minimize
    found = seen.attempt(
        sad.minimize, problem, upper, case.x, y0=start_of(case), **options, **case.F
    )
    if found is None:
        return
    seen.tell(found)
    if not found.success:
        seen.told.append("no success")
    truth, first = seen.truth_at(found.x, found.y), case.truth
    if truth is None:
        return
    seen.note("F", found.fun, truth)
    seen.note("gradient", found.jac, truth)
    low, high = options.get("bounds", (-np.inf, np.inf))

    def size(x, g):
        return np.linalg.norm(x - np.clip(x - g, low, high))

    if found.success:
        scale = max(abs(truth.F), 1e-3 * (first.F - truth.F))  # as ``minimize`` has it
        asked = max(1e-4 * scale, 1e-8 * first.terms)
        excess = size(found.x, truth.dF) / asked
        # Twice the tolerance counts as wrong: 1 in units of what is allowed.
        seen.errors["projected gradient"] = 0.5 * excess * case.allowed


FLOWS = {
    "solve": flow_solve,
    "products": flow_solve,
    "adjoint": flow_solve,
    "bring": flow_bring,
    "call": flow_call,
    "evaluate": flow_call,
    "minimize": flow_minimize,
}


# one case -----------------------------------------------------------------------------


def make_case(seed, index, name, kind):
    """Return the case of an index; raise Inapplicable where the class has no such fault."""
    rng = np.random.default_rng([seed, index])
    d, truth = P.draw(name, rng)
    case = Case(name, kind, rng, d, truth)
    forms = ["function", "dense", "sparse"]
    shares = {"explicit": [0, 0.6, 0.4], "function": [1, 0, 0]}.get(
        name, [0.5, 0.3, 0.2]
    )
    case.form = str(rng.choice(forms, p=shares))
    case.flow = str(
        rng.choice(
            ["solve", "products", "bring", "call", "evaluate"],
            p=[0.25, 0.25, 0.1, 0.2, 0.2],
        )
    )
    case.u, case.v = rng.standard_normal(d.x.size), rng.standard_normal(d.n)
    if d.stationary:
        case.solve["method"] = case.F["solver"] = "newton_kkt"
        case.derivative["method"] = case.F["method"] = "minres"
    if (
        (d.inequalities or d.low is not None)
        and d.barrier is None
        and rng.random() < 0.2
    ):
        case.solve["method"] = case.F["solver"] = "barrier"
    group, spoil = KINDS[kind]
    try:
        if group in {"problem", "data"}:
            spoil(case)
        units = case.d.units
        if units is not None:
            case.u, case.v = case.u / units.E, case.v / units.D
        case.x = case.d.x.copy()
        case.functions = functions_of(case)
        if group not in {"problem", "data"}:
            spoil(case)
    except (P.NoTruth, np.linalg.LinAlgError) as error:
        raise Inapplicable from error
    if group == "function":
        case.exercised = False
    if case.float32:
        _in_float32(case)
    return case


def _in_float32(case):
    def narrow(function):
        def called(*arguments):
            out = function(*arguments)
            return out.astype(np.float32) if hasattr(out, "astype") else np.float32(out)

        return called

    case.functions = {k: narrow(f) for k, f in case.functions.items()}
    case.A_form = "dense"
    for name in ("x", "u", "v"):
        setattr(case, name, np.asarray(getattr(case, name), dtype=np.float32))
    start = start_of(case)
    case.y0 = None if start is None else start.astype(np.float32)


def run_case(case):
    """Return what was seen of a case."""
    seen = Seen(case)
    flow = FLOWS.get(case.flow, flow_call)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        built = seen.attempt(assemble, case)
        if built is not None:
            flow(case, seen, *built)
    seen.told += [
        str(w.message) for w in caught if issubclass(w.category, sad.ConvergenceWarning)
    ]
    return seen


def _file(frame):
    return frame.tb_frame.f_code.co_filename


def is_documented(case, error):
    """Whether an exception is the user's own, or was raised by the package on purpose."""
    if any(own in (error, error.__cause__) for own in case.user_errors):
        return True
    frames, last = [], error.__traceback__
    while last is not None:
        frames.append(last)
        last = last.tb_next
    ours = [f for f in frames if _file(f).startswith((PACKAGE, HERE))]
    if case.user_mistake and _file(ours[-1]).startswith(HERE):
        return True
    last, code = frames[-1], frames[-1].tb_frame.f_code
    if not (_file(last).startswith(PACKAGE) and isinstance(error, DOCUMENTED)):
        return False
    at = [i for i in dis.get_instructions(code) if i.offset == last.tb_lasti]
    return bool(at) and at[0].opname == "RAISE_VARARGS"


def checkers_object(case):
    """Whether ``check_derivatives`` or ``check_hypergradient`` sees the user's fault."""
    for reset in case.resets:
        reset()
    rng = np.random.default_rng(0)
    d = case.d
    away = 1e-3 if d.barrier is not None else 0.3
    y = case.truth.y + away * rng.standard_normal(d.n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem, upper = assemble(case)
        for objective in (problem, problem.objective):
            try:
                sad.check_derivatives(objective, d.x, y)
            except Exception:  # noqa: BLE001  (any refusal)
                return True
        options = {k: v for k, v in case.F.items() if k in {"solver", "method"}}
        F = sad.Hypergradient(problem, upper, y0=start_of(case), tol=1e-10, **options)
        try:
            sad.check_hypergradient(F, d.x)
        except Exception:  # noqa: BLE001  (any refusal)
            return True
    return False


def judge(case, seen):
    """Return the verdict and what it rests on."""
    foreign = [e for e in seen.raised if not is_documented(case, e)]
    if foreign:
        return "FOREIGN", where(foreign[0])
    allowed = case.allowed
    wrong = {k: e for k, e in seen.errors.items() if not e <= allowed}
    if case.expect == "weak":
        untold = bool(seen.errors.keys() & {"jvp", "vjp", "gradient"})
        if untold and not seen.told and not seen.raised:
            return "SILENT", f"weak activity is not told ({', '.join(seen.errors)})"
    if not (seen.errors or seen.raised):
        return "inert", "nothing to compare"
    if not wrong:
        return ("HONEST", where(seen.raised[0])) if seen.raised else ("RIGHT", "")
    if seen.told:
        return "HONEST", seen.told[0]
    worst = ", ".join(f"{k} {e:.1e}" for k, e in wrong.items())
    if case.expect == "right" and all(e <= 1e-7 * case.ill for e in wrong.values()):
        return "amplified", worst
    group = KINDS[case.kind][0]
    if group == "function" and checkers_object(case):
        return "RIGHT", "caught"
    wanted = "" if case.expect == "right" else f" ({case.expect} expected)"
    return "SILENT", worst + wanted


def where(error):
    """Return an exception, and the last line of the package that it passed."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if f.filename.startswith(PACKAGE)
    ]
    at = (
        f"{Path(frames[-1].filename).relative_to(PACKAGE)}:{frames[-1].lineno}"
        if frames
        else ""
    )
    return f"{type(error).__name__}: {str(error)[:80]!r} at {at}"


@contextlib.contextmanager
def limited(seconds):
    def stop(*_):
        raise Hang

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of processor time
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


# the campaign ---------------------------------------------------------------------------


def deck(seed):
    """Yield (index, class, kind) for ever: the groups by their shares, pairs in turn."""
    rng = np.random.default_rng(seed)
    groups = {}
    for group in SHARES:
        kinds = [k for k, (g, _) in KINDS.items() if g == group]
        pairs = list(itertools.product(P.CLASSES, kinds))
        rng.shuffle(pairs)
        groups[group] = itertools.cycle(pairs)
    names, shares = list(SHARES), np.array(list(SHARES.values()))
    for index in itertools.count():
        group = names[rng.choice(len(names), p=shares / shares.sum())]
        yield index, *next(groups[group])


def run_one(seed, index, name, kind, verbose):
    """Return (case, verdict, detail, seconds), or None where the pair does not apply."""
    began = time.process_time()
    try:
        case = make_case(seed, index, name, kind)
    except Inapplicable:
        return None
    try:
        with limited(LIMIT):
            seen = run_case(case)
            verdict, detail = judge(case, seen)
    except Inapplicable:
        return None
    except Hang:
        return case, "HANG", f"> {LIMIT} s", LIMIT
    except Exception as error:  # noqa: BLE001  (of the campaign itself)
        traceback.print_exc()
        return case, "HARNESS", repr(error), time.process_time() - began
    case.exercised |= case.hits > 0
    if not case.exercised:
        verdict = "inert" if verdict != "SILENT" else "SILENT"
    if verbose:
        for error in seen.raised:
            traceback.print_exception(error)
        print("told", seen.told, "\nerrors", seen.errors)
    return case, verdict, detail, time.process_time() - began


def campaign(args):
    """Run the cases and return (class, group, verdict, case-line) of each."""
    rows, count = [], 0
    wanted = args.only.split("/") if args.only else []
    for index, name, kind in deck(args.seed):
        if args.case is not None and index > args.case:
            break
        if args.case is None and count >= args.cases:
            break
        if args.case is not None and index != args.case:
            continue
        if index % args.parts != args.part:
            continue
        hidden = wanted and not (
            wanted[0] in {"", kind} and (len(wanted) < 2 or wanted[1] in {"", name})
        )
        if hidden and index > 200_000:
            break
        if hidden:
            continue
        with np.errstate(all="ignore"):
            done = run_one(args.seed, index, name, kind, args.verbose)
        if done is None:
            continue
        count += 1
        case, verdict, detail, seconds = done
        target = f" [{case.target}]" if case.target else ""
        line = (
            f"{verdict:8s} --seed {args.seed} --case {index:<6d} {kind}/{name}{target} "
            f"flow {case.flow}: {detail}"
        )
        bad = verdict in {"SILENT", "FOREIGN", "HANG", "HARNESS"}
        if args.verbose or seconds > 10.0 or bad:
            print(f"{seconds:.1f} s  {line}", flush=True)
        rows.append((name, KINDS[kind][0], kind, verdict, case.benign, detail, line))
    return rows


VERDICTS = (
    "RIGHT",
    "HONEST",
    "FOREIGN",
    "SILENT",
    "HANG",
    "amplified",
    "HARNESS",
    "inert",
)


def table(rows, kinds):
    """Print class x group, and by kind where asked for."""
    groups = [g for g in SHARES if any(r[1] == g for r in rows)]
    print("RIGHT/HONEST/FOREIGN/SILENT, inert ones apart\n")
    print(
        f"{'class':16s}" + "".join(f"{g:>18s}" for g in [*groups, "all"]) + "   inert"
    )
    for name in [*P.CLASSES, "all"]:
        mine = [r for r in rows if name in {r[0], "all"}]
        cells = []
        for g in [*groups, "all"]:
            n = Counter(r[3] for r in mine if g in {r[1], "all"})
            cells.append("/".join(str(n[v]) for v in VERDICTS[:4]))
        inert = sum(r[3] == "inert" for r in mine)
        if mine:
            print(f"{name:16s}" + "".join(f"{c:>18s}" for c in cells) + f"{inert:8d}")
    n = Counter(r[3] for r in rows)
    exercised = len(rows) - n["inert"]
    caught = sum(r[5] == "caught" for r in rows)
    refused = sum(r[3] == "HONEST" and r[4] for r in rows)
    print(
        f"\n{len(rows)} cases, {exercised} exercised: "
        + ", ".join(f"{n[v]} {v}" for v in VERDICTS)
        + f"; {caught} of RIGHT caught by a checker; {refused} of HONEST refused though sound"
    )
    if kinds:
        print()
        for kind in sorted({r[2] for r in rows}):
            mine = [r for r in rows if r[2] == kind]
            n = Counter(r[3] for r in mine)
            sound = sum(r[3] == "HONEST" and r[4] for r in mine)
            cells = "/".join(str(n[v]) for v in VERDICTS[:4])
            print(f"{kind:24s} {cells:>12s} inert {n['inert']} refused {sound}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=2400)
    parser.add_argument("--only", default="", metavar="KIND/CLASS")
    parser.add_argument("--case", type=int, help="run the case of this index alone")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--parts", type=int, default=1, help="processes that share it")
    parser.add_argument("--part", type=int, default=0, help="which of them, from 0")
    parser.add_argument(
        "--refused", action="store_true", help="list sound problems too"
    )
    args = parser.parse_args()
    began = time.process_time()
    rows = campaign(args)
    print()
    table(rows, args.verbose)
    bad = [r for r in rows if r[3] in {"SILENT", "FOREIGN", "HANG", "HARNESS"}]
    failed = bool(bad)
    if args.refused:
        bad += [r for r in rows if r[3] == "HONEST" and r[4]]
    print()
    for row in sorted(bad, key=lambda r: (r[3], r[2], r[0])):
        print(row[6])
    print(f"\n{time.process_time() - began:.0f} s of processor time")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
