"""Support vector machines by their dual, with the costs C, ε and the kernel learned.

    min_a ½ β'Kβ + p'a + ½ Σ_i d_i a_i²    0 ≤ a_i ≤ C_i(x),   s'a = 0,   β = s ∘ a

    hinge           s = t             p = −1               d = 0
    squared hinge   s = t             p = −1               d = 1 / (2 C),  no upper bound
    epsilon         s = (1, −1)       p = ε − s ∘ (t, t)   d = 0,          β = a₁ − a₂

which is the dual of min_f ½ ‖f‖² + Σ_i C_i ℓ(f_i + b, t_i).  The intercept b is the multiplier
of s'a = 0: s_i b = −∂f/∂a_i of the samples with 0 < a_i < C_i.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..arrays import (
    Array,
    as_array,
    as_vector,
    copied,
    dot,
    full,
    namespace,
    zeros,
)
from ..operators.linear_operator import LinearOperator, aslinearoperator
from ..problem.constraints import LinearEquality
from ..problem.problem import ActiveSet, Problem, Solution
from .held_out_decision import HeldOutDecision, rows_of
from .intercept import Intercept, intercept_of, tell
from .kernel import Kernel, as_kernel, checked_matrix
from .kernel_columns import columns_of, diagonal_of
from .loss import Loss
from .losses import SquaredHinge, as_loss
from .pairwise_descent import PairwiseDescent
from .sample_costs import SampleCosts, sample_weights

_FEW = 512  # free variables up to which products with an operator give their matrix
_LOOSE = 1e-3  # of the range of the targets: where Newton's method takes over
_SWEEPS = 50  # steps of pairs, per sample at most

LOSSES = ("hinge", "squared-hinge", "epsilon")


class SupportVectors(NamedTuple):
    """Samples by their place, as ascending indices.

    ``margin``: 0 < a_i < C_i, on the margin, or the tube, which they determine;
    ``cost``: a_i = C_i, beyond it;  ``undecided``: at a bound without a force, on the
    margin by chance: the derivative is one-sided there.
    """

    margin: Array
    cost: Array
    undecided: Array


class SupportVector:
    """The dual of a support vector machine: an :class:`Objective` in (log-costs, a).

    Parameters
    ----------
    kernel : array, sparse matrix or operator (N, N), or Kernel
        Positive semidefinite; :func:`linear_kernel` of features, or a :class:`Kernel`
        with parameters θ such as :class:`GaussianKernel`.
    targets : array (N,)
        Labels −1/+1 or 0/1; real numbers for "epsilon".
    loss : {"hinge", "squared-hinge", "epsilon"}
        max(0, 1 − t z), its square, or max(0, |t − z| − ε).
    cost : {"scalar", "per-class", "per-group", "per-sample"}
        The samples that one log-cost of x weighs: C_i = w_i e^{x_g(i)}.  Per class the
        first entry is that of the labels −1.
    groups : int array (N,), optional
        Group of each sample, 0 … G−1, for "per-group".
    epsilon : float, optional
        Half the width of the tube of "epsilon"; without it log ε is learned.
    intercept : bool
        Whether f has a constant b, which is not penalised.  ``kernel + 1`` with
        ``intercept=False`` penalises it.
    sample_weight : array (N,), optional
        The factors w_i >= 0 of the costs; a sample of weight 0 does not count.

    Attributes
    ----------
    n, m : int
        Sizes of y = a, N or 2 N for "epsilon", and of x = (log-costs, log ε, θ).
    problem : Problem
        The dual with its constraints.

    Raises
    ------
    ConvergenceError
        NEGATIVE_CURVATURE for a kernel with a negative eigenvalue, which is named.
    ValueError, TypeError
        For wrong arguments, such as an asymmetric kernel, or a class whose weights are all
        0: with an intercept nothing is learned then.

    Notes
    -----
    A Hessian product costs one with K.  Of ``linear_kernel`` that is two passes over the
    features.  A dense kernel is factorised once per θ to see that it is semidefinite.

    References
    ----------
    C.-C. Chang, C.-J. Lin, "LIBSVM: a library for support vector machines", ACM Trans.
    Intell. Syst. Technol. 2 (2011) 27, sections 2.1 and 2.4.
    """

    convex = True  # the kernel was checked

    def __init__(
        self,
        kernel: Any,
        targets: Any,
        *,
        loss: str = "hinge",
        cost: str = "scalar",
        groups: Any = None,
        epsilon: float | None = None,
        intercept: bool = True,
        sample_weight: Any = None,
    ) -> None:
        if loss not in LOSSES:
            known = ", ".join(map(repr, LOSSES))
            raise ValueError(f"loss must be one of {known}, found {loss!r}")
        self.kernel: Kernel = as_kernel("kernel", kernel)
        self.loss, self.intercept_ = loss, bool(intercept)
        self._regression = loss == "epsilon"
        targets = as_array("targets", targets)
        size = int(targets.shape[0]) if targets.ndim else 0
        if size == 0:
            raise ValueError("targets must have at least one entry")
        if tuple(self.kernel.shape) != (size, size):
            raise ValueError(
                f"kernel must have shape ({size}, {size}), a row and a column for each "
                f"target, found {tuple(self.kernel.shape)}"
            )
        self.dtype = _dtype_of(kernel, targets)
        prepare = as_loss("squared") if self._regression else SquaredHinge()
        self.targets = prepare.prepare(targets, self.dtype)
        weights = sample_weights(sample_weight, self.targets)
        self._costs = SampleCosts(cost, groups, weights, self.targets, self._regression)
        self._refuse_missing_class()
        self.cost_kind, costs = cost, self._costs.count
        self._fixed_epsilon = self._checked_epsilon(epsilon)
        learned = self._regression and epsilon is None
        self._parts = costs, costs + int(learned)
        self.n = 2 * size if self._regression else size
        self.m = self._parts[1] + int(self.kernel.m)
        ones = full((size,), 1.0, self.targets)
        xp = namespace(ones)
        self.signs = xp.concat([ones, -ones]) if self._regression else self.targets
        self._memo: tuple[Array, Any] | None = None
        self._last: tuple[Any, Array, Array] | None = None
        if self.kernel.m == 0:
            self._matrix(zeros((0,), self.targets))

    def __repr__(self) -> str:
        return (
            f"SupportVector({self.targets.shape[0]} samples, loss={self.loss!r}, "
            f"cost={self.cost_kind!r}, n={self.n}, m={self.m})"
        )

    def _refuse_missing_class(self) -> None:
        """Refuse labels of which only one counts: s'a = 0 leaves a = 0 alone."""
        xp = namespace(self.targets)
        if self._regression or not self.intercept_:
            return
        for label in (-1.0, 1.0):
            of_class = self.targets == label
            if not bool(xp.any(of_class)):
                raise ValueError(
                    f"targets must have both labels, found none of {label:+.0f}; with "
                    "intercept=False one is enough"
                )
            if not bool(xp.any(of_class & (self._costs.weights > 0.0))):
                raise ValueError(
                    f"sample_weight must not be 0 for all samples of the class "
                    f"{label:+.0f}: with an intercept nothing is learned then"
                )

    def _checked_epsilon(self, epsilon: float | None) -> float:
        if epsilon is None:
            return 0.0
        if not self._regression:
            raise ValueError("epsilon goes with loss='epsilon', and only with it")
        if not (0.0 <= float(epsilon) < np.inf):
            raise ValueError(f"epsilon must be finite and >= 0, found {epsilon!r}")
        return float(epsilon)

    # The parameters.

    def _checked_x(self, x: Array) -> Array:
        x = as_vector("x", x)
        if x.shape != (self.m,):
            raise ValueError(f"x must have shape ({self.m},), found {tuple(x.shape)}")
        return x

    def costs(self, x: Array) -> Array:
        """Return C_i for each sample, shape (N,)."""
        return self._costs.at(self._checked_x(x)[: self._parts[0]])

    def epsilon(self, x: Array) -> float:
        """Return ε, half the width of the tube; 0 for labels."""
        costs, rest = self._parts
        if costs == rest:
            return self._fixed_epsilon
        with np.errstate(over="ignore"):
            return float(np.exp(np.float64(float(self._checked_x(x)[costs]))))

    def theta(self, x: Array) -> Array:
        """Return the parameters of the kernel."""
        return self._checked_x(x)[self._parts[1] :]

    def _matrix(self, theta: Array) -> Any:
        """Return K(θ), checked when θ is new."""
        xp = namespace(theta)
        if self._memo is None or not bool(xp.all(self._memo[0] == theta)):
            size = self.targets.shape[0]
            K = checked_matrix("kernel", self.kernel.matrix(copied(theta)), size)
            self._memo = copied(theta), K
        return self._memo[1]

    # The dual variables.

    def _fold(self, v: Array) -> Array:
        """Return the sum of both halves of "epsilon": (n,) → (N,)."""
        if not self._regression:
            return v
        half = self.targets.shape[0]
        return v[:half, ...] + v[half:, ...]

    def unfold(self, w: Array) -> Array:
        """Return the transpose: (N,) → (n,)."""
        return namespace(w).concat([w, w]) if self._regression else w

    def coefficients(self, y: Array) -> Array:
        """Return β, shape (N,): f = Σ_i β_i k(·, i) + b."""
        return self._fold(self.signs * as_vector("y", y, self.n))

    def _linear(self, x: Array) -> Array:
        """Return p, the linear term."""
        if self._regression:
            return self.epsilon(x) - self.signs * self.unfold(self.targets)
        return full((self.n,), -1.0, self.targets)

    def _diagonal(self, x: Array) -> Array | None:
        """Return d = 1 / (2 C) of the squared hinge; 0 where a sample does not count."""
        if self.loss != "squared-hinge":
            return None
        C, xp = self.costs(x), namespace(x)
        counts = self._costs.weights > 0.0
        return xp.where(counts, 0.5 / xp.where(counts, C, xp.ones_like(C)), 0.0 * C)

    @cached_property
    def constraints(self) -> dict[str, Any]:
        """The box and s'a = 0, as arguments of :class:`Problem`, which takes them itself."""
        found: dict[str, Any] = {"lower": 0.0}
        if self.intercept_:
            row = self.signs[None, :]
            found["equality"] = LinearEquality(row, zeros((1,), self.signs))
        if self.loss != "squared-hinge":
            found |= {
                "upper": self._upper,
                "upper_jvp": self._upper_jvp,
                "upper_vjp": self._upper_vjp,
            }
        elif not bool(namespace(self._costs.weights).all(self._costs.weights > 0.0)):
            xp, w = namespace(self._costs.weights), self._costs.weights
            found["upper"] = xp.where(w > 0.0, xp.inf + 0.0 * w, 0.0 * w)
        return found

    @cached_property
    def problem(self) -> Problem:
        """The dual problem, ``Problem(self)``."""
        return Problem(self)

    def _upper(self, x: Array) -> Array:
        return self.unfold(self.costs(x))

    def _finite_costs(self, x: Array) -> Array:
        C = self.costs(x)
        return namespace(C).where(
            namespace(C).isfinite(C), C, 0.0 * self._costs.weights
        )

    def _upper_jvp(self, x: Array, u: Array) -> Array:
        along = self._costs.spread(u[: self._parts[0]])
        return self.unfold(self._finite_costs(x) * along)

    def _upper_vjp(self, x: Array, w: Array) -> Array:
        head = self._costs.gather(self._finite_costs(x) * self._fold(w))
        rest = zeros((self.m - self._parts[0],), head)
        return namespace(w).concat([head, rest])

    # The objective.

    def _function(self, x: Array, beta: Array) -> Array:
        """Return K β, not to be written to; the last one is remembered."""
        K, last, xp = self._matrix(self.theta(x)), self._last, namespace(beta)
        if last is None or last[0] is not K or not bool(xp.all(last[1] == beta)):
            last = self._last = K, copied(beta), aslinearoperator(K) @ beta
        return last[2]

    def value(self, x: Array, y: Array) -> float:
        """Return f(x, a), minus the value of the dual."""
        beta, d = self.coefficients(y), self._diagonal(x)
        value = 0.5 * dot(beta, self._function(x, beta)) + dot(self._linear(x), y)
        return value if d is None else value + 0.5 * dot(d * y, y)

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y, shape (n,)."""
        beta, d = self.coefficients(y), self._diagonal(x)
        f = self._function(x, beta)
        grad = self.signs * self.unfold(f) + self._linear(x)
        return grad if d is None else grad + d * y

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return f_X, shape (m,)."""
        beta, d = self.coefficients(y), self._diagonal(x)
        (costs, start), xp = self._parts, namespace(y)
        none = zeros((costs,), y)
        parts = [none if d is None else self._costs.gather(-0.5 * d * y * y)]
        if start > costs:
            parts.append(xp.reshape(self.epsilon(x) * xp.sum(y), (1,)))
        if self.kernel.m:
            parts.append(0.5 * self.kernel.vjp(self.theta(x), beta, beta))
        return xp.concat(parts)

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY, an operator (n, n)."""
        K, d = aslinearoperator(self._matrix(self.theta(x))), self._diagonal(x)
        signs, fold, unfold = self.signs, self._fold, self.unfold

        def product(v: Array) -> Array:
            column = (slice(None), *(None,) * (v.ndim - 1))
            found = signs[column] * unfold(K @ fold(signs[column] * v))
            return found if d is None else found + d[column] * v

        def diagonal() -> Array:
            found = unfold(K.diagonal())
            return found if d is None else found + d

        return LinearOperator(
            (self.n, self.n),
            product,
            product,
            matmat=product,
            rmatmat=product,
            dtype=self.dtype,
            symmetric=True,
            positive_definite=d is not None and bool(namespace(d).all(d > 0.0)),
            diagonal=diagonal if K.has_diagonal else None,
        )

    def hess_entries(self, x: Array, y: Array, index: Any) -> Any:
        """Return the rows and columns of f_YY at an index, None for an operator."""
        K, size = self._matrix(self.theta(x)), self.targets.shape[0]
        place = index % size
        if isinstance(K, np.ndarray):
            block = K[np.ix_(place, place)]
        elif isinstance(self.targets, np.ndarray) and index.shape[0] <= _FEW:
            units = np.zeros((size, index.shape[0]), self.dtype)
            units[place, np.arange(index.shape[0])] = 1.0
            block = (aslinearoperator(K) @ units)[place]
        else:
            return None
        s, d = self.signs[index], self._diagonal(x)
        H: Any = block * s[:, None] * s[None, :]
        if d is not None:
            H[np.diag_indices_from(H)] += d[index]
        return H

    def approach(self, x: Array, y: Array) -> Array:
        """Return a point nearer to the solution than y, for a solver to start from.

        Pairs of variables move until the constraints of the primal hold to a thousandth.
        """
        K = self._matrix(self.theta(x))
        if not isinstance(y, np.ndarray):
            return y
        s: Any = self.signs
        C: Any = self._bound(x)
        d: Any = self._diagonal(x)
        size, own = self.targets.shape[0], np.zeros_like(y) if d is None else d
        column = columns_of(K, size, self.dtype)
        unfold: Any = self.unfold
        state = PairwiseDescent(
            z=s * y,
            r=-s * self.grad(x, y),
            low=np.where(s > 0.0, 0.0 * y, -C),
            high=np.where(s > 0.0, C, 0.0 * y),
            diagonal=unfold(diagonal_of(K, size)) + own,
            column=lambda i: unfold(column(i % size)),
            own=own,
            entries=K if isinstance(K, np.ndarray) else None,
        )
        at_zero: Any = s * self._linear(x)
        wide = float(np.max(at_zero) - np.min(at_zero))
        tol = _LOOSE * (0.5 * wide or float(np.max(np.abs(at_zero))))
        move = state.pairs if self.intercept_ else state.singles
        move(tol, _SWEEPS * self.n)
        return s * state.z

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return f_XY, an operator (n, m)."""
        theta, beta, d = self.theta(x), self.coefficients(y), self._diagonal(x)
        (costs, start), epsilon = self._parts, self.epsilon(x)
        xp, kernel, signs = namespace(y), self.kernel, self.signs

        def forward(u: Array) -> Array:
            moved = signs * self.unfold(kernel.jvp(theta, beta, u[start:]))
            if start > costs:
                moved = moved + epsilon * u[costs]
            if d is not None:
                moved = moved - d * y * self._costs.spread(u[:costs])
            return moved

        def adjoint(w: Array) -> Array:
            none = zeros((costs,), w)
            parts = [none if d is None else self._costs.gather(-d * y * w)]
            if start > costs:
                parts.append(xp.reshape(epsilon * xp.sum(w), (1,)))
            if self.kernel.m:
                parts.append(kernel.vjp(theta, beta, self._fold(signs * w)))
            return xp.concat(parts)

        return LinearOperator((self.n, self.m), forward, adjoint, dtype=self.dtype)

    # What is learned.

    def intercept(self, solution: Solution) -> Intercept:
        """Return the intercept b at a solution, 0 for a model without."""
        if not self.intercept_:
            return Intercept(0.0, 0.0, 0.0)
        return self.intercept_at(solution.x, solution.y, solution.active)[0]

    def intercept_at(
        self, x: Array, y: Array, active: ActiveSet | None = None
    ) -> tuple[Intercept, Array]:
        """Return b = Σ_i ω_i r_i of r = −s ∘ f_Y, and the weights ω, (n,)."""
        r = -self.signs * self.grad(x, y)
        return intercept_of(r, y, self._bound(x), self.signs, active)

    def _bound(self, x: Array) -> Array:
        """Return the upper bounds (n,), infinite where there are none."""
        C = self.costs(x)
        if self.loss == "squared-hinge":
            C = namespace(C).where(self._costs.weights > 0.0, np.inf + 0.0 * C, 0.0 * C)
        return self.unfold(C)

    def decision(self, solution: Solution, kernel: Any = None) -> Array:
        """Return f + b for other samples, shape (rows,).

        Parameters
        ----------
        solution : Solution
        kernel : array, sparse matrix or operator (rows, N), or Kernel, optional
            Of the other samples with those of the model; without it of the latter.

        Warns
        -----
        ConvergenceWarning
            Where the intercept is not unique.
        """
        x, y = solution.x, solution.y
        b = self.intercept(solution)
        tell(b)
        theta = self.theta(x)
        if kernel is None:
            K = self._matrix(theta)
        else:
            rows = rows_of(kernel, self, at_one_point=True)
            K = rows.matrix(theta[: rows.m])
        return aslinearoperator(K) @ self.coefficients(y) + b.value

    def support(self, solution: Solution) -> SupportVectors:
        """Return which samples are on the margin, beyond it, and undecided."""
        xp, y, C = namespace(solution.y), solution.y, self._bound(solution.x)
        active = solution.active
        fixed = (y <= 0.0) | (y >= C) if active is None else active.fixed
        weak = 0.0 * y > 1.0 if active is None else active.weak_fixed
        masks = ~fixed & ~weak, fixed & (y > C - y) & (C > 0.0), weak & (C > 0.0)
        return SupportVectors(
            *(xp.nonzero(self._fold(xp.astype(m, y.dtype)) > 0.0)[0] for m in masks)
        )

    def duality_gap(self, solution: Solution) -> float:
        """Return primal minus dual value, >= 0 but for rounding.

        Both are sums of N terms; relative to the primal value that is the measure of
        other libraries.
        """
        x, y = solution.x, solution.y
        xp, C, beta = namespace(y), self.costs(x), self.coefficients(y)
        f = self._function(x, beta)
        z, t = f + self.intercept(solution).value, self.targets
        regression = self._regression
        losses = xp.abs(t - z) - self.epsilon(x) if regression else 1.0 - t * z
        losses = xp.maximum(losses, 0.0 * losses)
        losses = losses**2 if self.loss == "squared-hinge" else losses
        costly = losses > 0.0
        primal = xp.where(costly, xp.where(costly, C, 0.0 * C) * losses, 0.0 * losses)
        return 0.5 * dot(beta, f) + float(xp.sum(primal)) + self.value(x, y)

    def held_out(
        self,
        kernel: Any,
        targets: Any,
        *,
        loss: str | Loss | None = None,
        sample_weight: Any = None,
    ) -> HeldOutDecision:
        """Return the mean loss of the decisions on other data: an upper objective.

        Parameters
        ----------
        kernel : array, sparse matrix or operator (rows, N), or Kernel
            Of the other samples with those of the model.
        targets : array (rows,)
        loss : str or Loss, optional
            A smooth one, such as those of ``Glm``; by default "squared-hinge", for real
            targets "squared".
        sample_weight : array (rows,), optional
        """
        default: Loss = as_loss("squared") if self._regression else SquaredHinge()
        chosen = default if loss is None else as_loss(loss)
        return HeldOutDecision(self, kernel, targets, chosen, sample_weight)


def _dtype_of(kernel: Any, targets: Array) -> Any:
    """Return the dtype of y, that of a floating kernel, in the namespace of the targets."""
    single = str(getattr(kernel, "dtype", None)).endswith("float32")
    name, xp = "float32" if single else "float64", namespace(targets)
    return np.dtype(name) if xp.__name__ in {"numpy", "cupy"} else getattr(xp, name)
