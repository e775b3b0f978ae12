"""Change each constant that a proof, a refusal or a margin rests on: a test must fail.

    python tests/mutants.py [--only WORD]

Each mutant is one line of a copy of the package, and the test files that should notice.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUARDS, UNITS = "test_guards.py", "test_changed_units.py"
MUTANTS = (
    (
        "linear_model/lipschitz_constants.py",
        "share = 0.5 if design.intercept else 1.0",
        "share = 1.0",
        GUARDS,
    ),
    (
        "linear_model/lipschitz_constants.py",
        "hess = third * dot",
        "hess = 0.1 * third * dot",
        GUARDS,
    ),
    ("hypergradient/descent_stopping.py", "_ETA = 0.25", "_ETA = 0.0", GUARDS),
    ("hypergradient/error_estimate.py", "_SAFETY = 3.0", "_SAFETY = 1.0", GUARDS),
    ("hypergradient/hypergradient.py", "and last_tol <= tol", "", GUARDS),
    (
        "hypergradient/hypergradient.py",
        "if _same(last.x, x) and last_tol",
        "if last_tol",
        GUARDS,
    ),
    (
        "hypergradient/error_bound.py",
        "(norm(found.adjoint.x) + norm(found.gradient - found.adjoint.x))",
        "norm(found.gradient)",
        "test_prior.py",
    ),
    (
        "hypergradient/error_estimate.py",
        "else _direct_lipschitz(part)",
        "else 0.0",
        "test_prior.py",
    ),
    (
        "hypergradient/hessian_product.py",
        "_SAFETY = 3.0",
        "_SAFETY = 0.0",
        "test_hessian_product.py",
    ),
    (
        "hypergradient/failed_points.py",
        "_LEAST = 0.1",
        "_LEAST = 0.9",
        "test_other_optimisers.py",
    ),
    ("bilevel/prior.py", "_MOST = 0.5", "_MOST = 1.0", "test_prior.py"),
    (
        "solvers/newton_cg.py",
        "if status.acceptable and not self.has_symmetric_preconditioner(point.y):",
        "if False:",
        "test_hard_inputs.py",
    ),
    (
        "solvers/interior_point/barrier.py",
        "closes_gap=True",
        "closes_gap=False",
        "test_hard_inputs.py",
    ),
    (
        "solvers/infeasibility.py",
        "proof > radius * norm(pull) + rounding",
        "proof > 1e-6 * radius * norm(pull) + rounding",
        GUARDS,
    ),
    (
        "solvers/infeasibility.py",
        "rounding = 32.0 *",
        "rounding = 0.0 *",
        "test_solve.py",
    ),
    (
        "krylov/linear_system.py",
        "0.1 * column.b_norm)",
        "math.inf)",
        GUARDS,
    ),
    (
        "problem/multipliers.py",
        "if right and (only or clear or norm(force) <= rounding):",
        "if True:",
        GUARDS,
    ),
    ("solvers/batched/interior_point.py", "rounding = 16.0", "rounding = 0.0", GUARDS),
    ("solvers/batched/interior_point.py", "_FAR = 1e6", "_FAR = 1e-3", GUARDS),
    ("solvers/batched/polish.py", "UNDECIDED = 1e-10", "UNDECIDED = 1e-6", GUARDS),
    ("solvers/batched/polish.py", "UNDECIDED = 1e-10", "UNDECIDED = 0.0", GUARDS),
    ("implicit/stacked_derivative.py", "REGULAR = 1e-10", "REGULAR = 1e3", GUARDS),
    ("implicit/many.py", "_ACCURATE = 1e-9", "_ACCURATE = 1e9", "test_batch.py"),
    ("implicit/one_sided.py", "_IMMOBILE = 1e-9", "_IMMOBILE = 0.0", GUARDS),
    ("preconditioners/jacobi.py", "floor=0.0)", "floor=1e-12)", UNITS),
    (
        "solvers/newton_kkt.py",
        "return step <= self.tol * self.length(point)  # false for NaN",
        "return True",
        UNITS,
    ),
    (
        "solvers/scaled_problem.py",
        "return _largest(size) < rounding and bool(namespace(y).any(way < rounding))",
        "return False",
        "test_constrained_units.py",
    ),
    (
        "preconditioners/damped_diagonal.py",
        "if outputs == 1:",
        "if outputs >= 1:",
        "test_auto.py",
    ),
    (
        "solvers/scaled_problem.py",
        "return told and _is_much_shorter(at, before)",
        "return False",
        UNITS,
    ),
    (
        "solvers/newton_cg.py",
        "return bool(xp.any(~(D > 0.0) & (xp.abs(point.grad) > noise)))",
        "return False",
        "test_no_silent_wrong.py",
    ),
    (
        "operators/probes.py",
        "return xp.sqrt(total) * unit / (s * s)",
        "return xp.sqrt(total) / (s * s)",
        "test_units.py",
    ),
    (
        "arrays/namespace.py",
        "array.flags.writeable = False",
        "pass",
        "test_arguments.py",
    ),
    (
        "solvers/interior_point/curvature.py",
        "if not np.isfinite(dense).all():",
        "if False:",
        "test_not_convex.py",
    ),
    (
        "solvers/stopping.py",
        "return dot(grad(far), ray) <= FAR * FAR * abs(dot(grad(y), step))",
        "return True",
        "test_hard_inputs.py",
    ),
    (
        "solvers/stopping.py",
        "(1 if again else 8)",
        "(0 if again else 8)",
        "test_hard_inputs.py",
    ),
    ("solvers/stopping.py", "_FALLS = 0.95", "_FALLS = 2.0", "test_hard_inputs.py"),
    (
        "solvers/stopping.py",
        "min(self.size, self.radius)",
        "self.size * 1e6",
        UNITS,
    ),
)


def survives(tree: Path, name: str, old: str, new: str, tests: str) -> bool:
    """Tell whether the tests pass with the line changed."""
    path = tree / "sparse_argdiff" / name
    text = path.read_text()
    if text.count(old) < 1:
        raise SystemExit(f"{name} does not contain {old!r} any more")
    path.write_text(text.replace(old, new, 1))
    try:
        return passes(tree, tests)
    finally:
        path.write_text(text)


def passes(tree: Path, tests: str) -> bool:
    """Tell whether a test file passes on the copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, str(tree / "tests" / tests)],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        check=False,
    )
    return run.returncode == 0


def main() -> None:
    """Report each mutant; exit with the number that survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    only, alive = parser.parse_args().only, 0
    with tempfile.TemporaryDirectory() as where:
        tree = Path(where)
        for part in ("sparse_argdiff", "tests", "benchmarks", "examples"):
            shutil.copytree(ROOT / part, tree / part)
        for part in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / part, tree / part)
        for tests in sorted({mutant[-1] for mutant in MUTANTS if only in mutant[0]}):
            if not passes(tree, tests):
                sys.exit(f"{tests} fails without a mutant")
        for name, old, new, tests in MUTANTS:
            if only in name:
                lives = survives(tree, name, old, new, tests)
                alive += lives
                print("survived" if lives else "killed  ", name, repr(new), flush=True)
    sys.exit(alive)


if __name__ == "__main__":
    main()
