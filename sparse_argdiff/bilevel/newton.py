"""Newton's method on F for few parameters: ∇²F once, by products, then by what gradients show.

    |∇²F| d = − z  on the free variables,    x₊ = P(x + t d),    y starts from g(x) + g'(x)(x₊ − x)

|∇²F| has the eigenvalues' absolute values; ∇²F and g' come with the same 2 m solves.  A BFGS
update follows each step.  Evaluations are loose at first: what the adjoint's correction
leaves of a value, and the error of the adjoint, are kept below a share of what they decide.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ..arrays import Array, dot, epsilon, namespace, norm
from ..hypergradient.hessian_product import HessianProduct, HessianProducts
from ..hypergradient.hypergradient import Hypergradient
from ..hypergradient.result import HypergradientResult
from ..status import ConvergenceError, Status
from .inexact_lbfgs import refuse_unsolved
from .result import BilevelResult
from .run import Memory, Run

_DECREASE = 1e-4  # of the slope, that a step must lower F by
_LOOSEST, _LOOSEST_ADJOINT = 1e-3, 1e-2  # tolerances of the first evaluations
_BAR = 0.5  # share of a correction that is the error of the corrected value
_TOLD = 0.1  # share of a slope that the errors of two values may be
_FLAT = 1e-3  # least curvature over the largest
_CAP = 1.5  # of the first steps: a factor 4.5 of a log-penalty
_TRIALS = 12


def newton(run: Run, x0: Array) -> BilevelResult:
    """Run the method from x0.

    References
    ----------
    J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., 2006, chapters 3 and 6.
    """
    if not isinstance(x0, np.ndarray):
        raise TypeError(
            "method='newton' has its m × m matrix on the host and needs NumPy arrays, "
            f"found {namespace(x0).__name__}; 'inexact_lbfgs' runs where x0 lives"
        )
    search = _Search(run)
    found, memory = run.begin(x0, search.evaluate, last_is_best=True)
    if run.ended is None:
        search.restore(memory, found)
        found = found if memory else search.told(found)
    while run.ended is None:
        trial = search.step(found)
        if trial is None:
            break
        search.learn(run.last, trial)
        found = trial
        run.fall = search.fall(found)
        run.accept(found, search.memory())
    if run.ended is None:
        return run.result(Status.LINE_SEARCH_FAILED, search.reason)
    return run.result(run.ended)


def hessian_columns(
    F: Hypergradient, found: HypergradientResult, rtol: float
) -> list[HessianProduct]:
    """Return the columns of ∇²F at an evaluation as it is, by 2 m solves to ``rtol``.

    Where the products are differences of gradients, these are as fine as F's own.
    """
    x = found.solution.x
    units = list(np.eye(x.shape[0], dtype=x.dtype))
    if HessianProducts.know(F.problem):
        options: dict[str, Any] = {"rtol": rtol, **F._linear}
        products = HessianProducts(F.problem, F.upper, found, **options)
        with contextlib.suppress(NotImplementedError):  # f_XY without products
            return [F._counted(products.product, u) for u in units]
    return [F.hessian_product(x, u) for u in units]


class _Search:
    """What a run learns: ∇²F, g', the two tolerances and the cap of a step."""

    def __init__(self, run: Run) -> None:
        self.run, F = run, run.F
        self.tol = max(_LOOSEST, F.tol)
        self.adjoint_tol = max(_LOOSEST_ADJOINT, F.adjoint_tol)
        self.cap, self.reason = _CAP, ""
        self.hessian: Any = None
        self.tangents: list[Array] = []  # of y by each parameter

    def memory(self) -> Memory:
        """Return all that the next step depends on, beside the iterate."""
        names = "tol", "adjoint_tol", "cap", "hessian", "tangents"
        return {name: getattr(self, name) for name in names}

    def restore(self, memory: Memory, found: HypergradientResult) -> None:
        """Set what :meth:`memory` returned; at x0, ∇²F and g'."""
        for name, value in memory.items():
            setattr(self, name, value)
        if memory:
            return
        n = found.solution.y.shape[0]
        columns = hessian_columns(self.run.F, found, self.adjoint_tol)
        if all(column.tangent.shape[0] >= n for column in columns):
            self.tangents = [column.tangent[:n] for column in columns]
        H: Any = np.stack([np.asarray(column.product) for column in columns], axis=1)
        self.hessian = 0.5 * (H + H.T)

    def evaluate(self, x: Array) -> HypergradientResult:
        """Return value and gradient; at the finest tolerances where that converges."""
        found = self.run.F.evaluate(
            x, tol=self.tol, adjoint_tol=self.adjoint_tol, certify=False
        )
        refuse_unsolved(found.solution, self.tol)
        return self.run.confirmed(found)

    def told(self, found: HypergradientResult) -> HypergradientResult:
        """Return x0 at the finest tolerances where its loose gradient may be all error.

        An error of δ |F|, δ the tolerance of the adjoint, makes a decrement of some δ² |F|.
        """
        noise = self.adjoint_tol**2 * self.run.scale(found.value)
        if self.fall(found) > noise or self.is_finest(found):
            return found
        self.sharpen(0.0)
        found = self.evaluate(found.solution.x)
        self.run.replace(found, self.memory())
        return found

    def fall(self, found: HypergradientResult) -> float:
        """Return how far F can still fall by the model."""
        return -0.5 * dot(found.gradient, self.direction(found))

    def step(self, found: HypergradientResult) -> HypergradientResult | None:
        """Return the next iterate; sharper evaluations where no trial is accepted."""
        while self.run.ended is None:
            trial = self.search(found, self.direction(found))
            if trial is not None or self.is_finest(found):
                return trial
            self.sharpen()
            try:
                self.run.F.recall(found.solution, found.tol)
                found = self.evaluate(found.solution.x)
            except ConvergenceError as error:
                self.reason = str(error)
                return None
            self.run.replace(found, self.memory())
        return None

    def direction(self, found: HypergradientResult) -> Any:
        """Return the step of the model on the free variables, cut to the cap."""
        z: Any = self.run.free_gradient(found.solution.x, found.gradient)
        free = np.flatnonzero(z)
        d = np.zeros_like(z)
        if free.size == 0:
            return d
        values, vectors = np.linalg.eigh(self.hessian[np.ix_(free, free)])
        size = np.abs(values)
        size = np.maximum(size, _FLAT * size.max()) if size.max() > 0.0 else size + 1.0
        d[free] = -vectors @ ((vectors.T @ z[free]) / size)
        return d * min(1.0, self.cap / np.abs(d).max())

    def search(
        self, found: HypergradientResult, d: Array
    ) -> HypergradientResult | None:
        """Backtrack along P(x + t d); None where no trial is accepted."""
        x, F, length = found.solution.x, self.run.F, 1.0
        for _ in range(_TRIALS):
            point = self.run.project(x + length * d)
            moved: Any = point - x
            slope = dot(found.gradient, moved)
            if not slope < 0.0:
                return None
            F.y = self.predicted(found, moved)
            fitted = 0.25 * length
            try:
                trial = self.evaluate(point)
                bar = _BAR * (abs(trial.correction) + abs(found.correction))
                if trial.value <= found.value + _DECREASE * slope + self.noise(
                    found, bar
                ):
                    return trial
                rise = trial.value - found.value - slope
                fitted = -0.5 * slope * length / rise
                if bar > _TOLD * abs(slope) and not self.is_finest(found):
                    return None
            except ConvergenceError as error:
                self.reason = str(error)
            self.cap = max(0.5 * float(np.abs(moved).max()), 1e-3)
            length = min(max(fitted, 0.1 * length), 0.5 * length)
        return None

    def predicted(self, found: HypergradientResult, moved: Any) -> Array:
        """Return y + g' (x₊ − x), y itself where g' is not known."""
        y = found.solution.y
        for change, tangent in zip(moved, self.tangents, strict=False):
            y = y + change * tangent
        return y

    def noise(self, found: HypergradientResult, bar: float) -> float:
        """Return the error that two values may have, rounding included."""
        return bar + 10.0 * epsilon(found.solution.y) * abs(found.value)

    def is_finest(self, found: HypergradientResult) -> bool:
        """Tell whether neither tolerance can be smaller."""
        F = self.run.F
        return found.tol <= F.tol and found.adjoint_tol <= F.adjoint_tol

    def sharpen(self, factor: float = 0.1) -> None:
        """Ask for finer solves."""
        F = self.run.F
        self.tol = max(factor * self.tol, F.tol)
        self.adjoint_tol = max(factor * self.adjoint_tol, F.adjoint_tol)

    def learn(self, found: Any, trial: HypergradientResult) -> None:
        """Update ∇²F by a step (BFGS), the cap, and the tolerances as the gradient falls."""
        s: Any = trial.solution.x - found.solution.x
        y: Any = trial.gradient - found.gradient
        Hs = self.hessian @ s
        bent = dot(s, Hs)
        if dot(s, y) > 1e-3 * norm(s) * norm(y) and bent > 0.0:
            self.hessian = (
                self.hessian - np.outer(Hs, Hs) / bent + np.outer(y, y) / dot(s, y)
            )
        if float(np.abs(s).max()) >= 0.99 * self.cap:
            self.cap *= 2.0
        sizes = [
            norm(self.run.free_gradient(f.solution.x, f.gradient))
            for f in (found, trial)
        ]
        bar = _BAR * abs(trial.correction)
        if bar > _TOLD * (found.value - trial.value) or sizes[1] < 0.1 * sizes[0]:
            self.sharpen()
