"""How much of the package a reader meets: files entered by a call, and lines of code.

    python benchmarks/files_entered.py [--list] [--entered-at-most V E] [--heart-at-most L]

Counted of the package that is imported (choose it by PYTHONPATH): the distinct files that
the second call enters, of ``vjp`` on an unconstrained quadratic and of
``Hypergradient.evaluate`` at a new x, with and without the certificate; the lines of code
of the files to read first, by tokens, without docstrings, comments and blank lines; and all
physical lines.  The counts are deterministic.  With limits, a count above one of them is an
exit status of 1.
"""

from __future__ import annotations

import argparse
import ast
import collections
import pathlib
import sys
import tokenize
from collections.abc import Callable
from typing import Any

import numpy as np

import sparse_argdiff as sad

PACKAGE = pathlib.Path(sad.__file__).resolve().parent

# Each file to read first, by its path in the package now and before the folders.
HEART = (
    ("implicit/derivative.py", "implicit.py"),
    ("implicit/kkt.py", "kkt.py"),
    ("problem/problem.py", "problem.py"),
    ("problem/objective.py", "objective.py"),
    ("operators/linear_operator.py", "linear_operator.py"),
    ("krylov/cg.py",),
    ("hypergradient/hypergradient.py", "hypergradient.py"),
)

_NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def frames_by_file(call: Callable[[], Any]) -> collections.Counter[str]:
    """Return how many Python frames a call enters in each file of the package."""
    frames: collections.Counter[str] = collections.Counter()

    def count(frame, event, _) -> None:
        if event == "call":
            frames[frame.f_code.co_filename] += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    inside = collections.Counter()
    for name, entered in frames.items():
        path = pathlib.Path(name).resolve() if name[:1] != "<" else pathlib.Path(name)
        if path.is_relative_to(PACKAGE):
            inside[path.relative_to(PACKAGE).as_posix()] += entered
    return inside


def quadratic(n: int = 400) -> tuple[sad.Problem, np.ndarray]:
    """Return the problem  min_y ½ y'Dy − x'y,  D diagonal, and an x."""
    d = np.geomspace(1.0, 100.0, n)
    objective = sad.FunctionObjective(
        value=lambda x, y: 0.5 * float(y @ (d * y)) - float(x @ y),
        grad=lambda x, y: d * y - x,
        hvp=lambda x, y, v: d * v,
        cross_jvp=lambda x, y, u: -u,
        cross_vjp=lambda x, y, w: -w,
        n=n,
    )
    return sad.Problem(objective), np.ones(n)


def adjoint_frames() -> collections.Counter[str]:
    """Return the frames of the second of two equal adjoints."""
    problem, x = quadratic()
    solution = sad.solve(problem, x)
    v = np.ones_like(solution.y)
    sad.vjp(problem, solution, v)
    return frames_by_file(lambda: sad.vjp(problem, solution, v))


def evaluation_frames(certify: bool) -> collections.Counter[str]:
    """Return the frames of the second evaluation of a hypergradient, at a new x."""
    problem, x = quadratic()
    upper = sad.FunctionUpper(
        lambda x, y: 0.5 * float(y @ y),
        lambda x, y: y,
    )
    F = sad.Hypergradient(problem, upper)
    F.evaluate(x, certify=certify)
    return frames_by_file(lambda: F.evaluate(1.1 * x, certify=certify))


def lines_of_code(path: pathlib.Path) -> int:
    """Return the number of lines that hold a token of code."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node) is not None:
            text = node.body[0]
            docstrings.update(range(text.lineno, text.end_lineno + 1))
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in _NOT_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def heart() -> dict[str, int]:
    """Return the lines of code of each file to read first, as it is called here."""
    found = {}
    for names in HEART:
        name = next((name for name in names if (PACKAGE / name).is_file()), None)
        if name is None:
            raise SystemExit(f"{PACKAGE} has none of {', '.join(names)}")
        found[name] = lines_of_code(PACKAGE / name)
    return found


def physical_lines() -> dict[str, tuple[int, int]]:
    """Return the number of files and of lines of each kind of source."""
    found = {}
    for kind in (".py", ".cu"):
        files = sorted(PACKAGE.rglob(f"*{kind}"))
        lines = [len(file.read_text(encoding="utf-8").splitlines()) for file in files]
        found[kind] = len(files), sum(lines)
    return found


def show_entered(what: str, frames: collections.Counter[str], each: bool) -> int:
    """Print and return the number of files entered."""
    print(f"{what:48s} {len(frames):4d} files  {frames.total():6d} frames")
    if each:
        for name in sorted(frames):
            print(f"    {name:44s} {frames[name]:18d}")
    return len(frames)


def main() -> None:
    """Print the counts; exit with 1 where one is above its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--list", action="store_true", help="name the files and their frames")
    add("--entered-at-most", nargs=2, type=int, metavar=("V", "E"))
    add("--heart-at-most", type=int, metavar="L")
    args = parser.parse_args()
    print(f"package {PACKAGE}\n\nfiles entered by the second call of")
    adjoint = show_entered("vjp, quadratic, n = 400", adjoint_frames(), args.list)
    show_entered(
        "Hypergradient.evaluate, certify=False", evaluation_frames(False), args.list
    )
    evaluation = show_entered(
        "Hypergradient.evaluate", evaluation_frames(True), args.list
    )
    code = heart()
    print("\nlines of code")
    for name, lines in code.items():
        print(f"    {name:44s} {lines:6d}")
    print(f"{'the files to read first':48s} {sum(code.values()):6d}")
    print("\nphysical lines")
    lines = physical_lines()
    for kind, (files, total) in lines.items():
        print(f"    {kind} in {files:3d} files{'':28s} {total:6d}")
    print(f"{'the package':48s} {sum(total for _, total in lines.values()):6d}")
    found = [sum(code.values()), adjoint, evaluation]
    limits = [args.heart_at_most, *(args.entered_at_most or (None, None))]
    pairs = zip(found, limits, strict=True)
    sys.exit(any(limit is not None and count > limit for count, limit in pairs))


if __name__ == "__main__":
    main()
