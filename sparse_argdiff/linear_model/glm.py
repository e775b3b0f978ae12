"""Generalised linear models with learnable penalties, as an objective.

    f(x, y) = Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i + ½ Σ_j e^{η_j} c_j²,    z = F c + b,  η = o + Z x

y = (c, b): coefficients, then intercepts.  x: parameters of the log-penalties.
"""

from __future__ import annotations

import functools
from typing import Any

from ..arrays import (
    Array,
    array_module,
    as_vector,
    namespace,
    to_namespace,
)
from ..operators.linear_operator import LinearOperator
from ..problem.constants import Constants
from ..problem.penalties import Penalty
from ..problem.problem import Problem
from .cross_validation import FoldedGlm, HeldOutFolds, list_folds, training_terms
from .design import Design, as_features
from .held_out import HeldOutLoss
from .leave_one_out import LeaveOneOut, LeaveOneOuts
from .log_weight_range import log_weight_range
from .loss import Loss
from .losses import as_loss
from .mean_loss import DataTerm, several_targets, terms_of
from .norms import NoRidge, norm_of
from .penalty import RidgePenalty
from .ridge_model import RidgeModel
from .stacked_models import StackedModels


class Glm:
    """A generalised linear model: an :class:`Objective` in (log-penalties, coefficients).

    f(x, y) = Σ_i w_i ℓ(z_i, t_i) / Σ_i w_i + ½ Σ_j e^{η_j} c_j²,  z = F c + b,  η = o + Z x

    Parameters
    ----------
    features : array, sparse matrix or operator (N, p)
        SciPy CSR or CSC is used as it is.
    targets : array (N,), or (N, t) for the squared loss
        Real numbers, labels 0/1 or −1/+1, counts, or classes, by the loss.  Of t targets
        each has coefficients and log-penalties of its own: y has size n t, x size m t,
        one target after the other, and f is the sum over them.
    loss : Loss, or its name
        "logistic", "squared", "poisson", "gamma", "tweedie", "huber", "quantile",
        "multinomial" or "squared-hinge"; ``linear_model.Tweedie(power)``, ``Huber(delta)`` and
        ``Quantile(level, width)`` have parameters.
    penalty : {"per-feature", "per-group", "per-coefficient", "scalar"} or Z (p, m)
        How the log-weights depend on x.  An array, a sparse matrix or an operator with
        matvec and rmatvec: η = o + Z x, one row a feature, the intercept has none; its
        columns are what is known of a feature, such as ones and the logarithm of its
        second moment.  A name stands for ones, for one-hot rows, and for identities.
        Several outputs: a row weighs all coefficients of a feature; "per-coefficient", or
        p K rows, weigh each, in C order.
    norm : {"l2", "l1", "elastic-net", "group-l1"}
        What the weights multiply: ½ c_j²; |c_j| (the lasso: no ridge); both, with
        x = (x₁, x₂) of log-weights of |c_j| and of ½ c_j², or one x with ``l1_ratio``;
        √p_g ‖c_g‖₂ of the p_g coefficients of a group, where the weights, and the rows of
        Z, are those of the groups ("scalar", "per-group" or Z (G, m)).  ``Problem(glm)``
        takes the norm from here; its solutions have a support.
    groups : int array (p,), optional
        Group of each feature for "per-group", and for "group-l1", by default a feature
        with all its outputs.
    l1_ratio : float, optional
        ρ of the elastic net: e^η (ρ |c_j| + ½ (1 − ρ) c_j²).
    log_offset : array (p,) or (p K,), optional
        o, 0 by default.  −∞: the feature is not penalised.  +∞: its coefficient is fixed
        at 0.
    intercept : bool
        Whether the model has a constant b; it is not penalised.
    sample_weight : array (N,), optional
    kernels : {"compiled", "reference"}, optional
        How Hessian products are formed.  "compiled" (numba, the extra ``fast``): one pass
        over sparse rows, with v'Hv at no cost; CSC is copied to CSR.  "reference": two
        passes, for features of any kind.  By default "compiled" where numba is installed
        and features are CSR of at least 10⁵ nonzeros, which repay its import.
        Both agree to rounding.  The first product of all compiles for some seconds; the
        code is kept on disk.
    threads : int
        Of compiled products.  Worth it from about 10⁶ nonzeros.

    Attributes
    ----------
    n, m : int
        Sizes of y and x.
    dtype : dtype
        Of y: that of the features.

    Notes
    -----
    The loss is a mean: e^η means the same for any number of samples, and for the folds of
    :meth:`cross_validation`.  scikit-learn's penalties are of sums: with one weight e^x

        Ridge(alpha=N e^x),    LogisticRegression(C=e^−x / N),    PoissonRegressor(alpha=e^x)

    have the same coefficients (so do GammaRegressor and TweedieRegressor), N replaced by the sum of the weights where there are some.

    Infinite log-weights come from ``log_offset``, and from x where the penalty has a name.
    A coefficient whose weight is infinite, or overflows, is 0 and no part of any solve; y
    keeps its size.  The derivative by its log-weight is 0, as it is where a weight is 0:
    ``Solution.warnings`` names both.

    A Hessian product costs two passes over the features, a compiled one usually one; where
    (n, n) has no more entries than the features have nonzeros, compiled products form the
    Hessian once that has paid.  Its diagonal is exact (one pass).  The loss determines
    multinomial intercepts only up to a common shift; the term ½ (mean b)², zero at the
    solution, makes them sum to zero and f_YY definite.

    Examples
    --------
    >>> import numpy as np
    >>> import sparse_argdiff as sad
    >>> from sparse_argdiff.linear_model import Glm
    >>> F = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0], [2.0, 0.0]])
    >>> t = np.array([1.0, 1.0, 3.0, 2.0])
    >>> glm = Glm(F, t, loss="squared", penalty="scalar")
    >>> x = np.array([-1.0])
    >>> sad.solve(sad.Problem(glm), x).y.round(4)  # c, then b
    array([0.3988, 0.4012, 0.9499])
    >>> from sklearn.linear_model import Ridge
    >>> ridge = Ridge(alpha=4 * np.exp(-1.0)).fit(F, t)
    >>> np.append(ridge.coef_, ridge.intercept_).round(4)
    array([0.3988, 0.4012, 0.9499])

    A level, and how far to standardise (x₂ = 1: as if the columns had second moment 1):

    >>> moments = np.mean(F**2, axis=0)
    >>> Z = np.stack([np.ones(2), np.log(moments)], axis=1)
    >>> Glm(F, t, loss="squared", penalty=Z)
    Glm(4 x 2, loss=Squared(), penalty=Z 2 x 2, n=3, m=2)
    """

    convex = True  # the losses and the penalty are

    def __init__(
        self,
        features: Any,
        targets: Any,
        *,
        loss: str | Loss = "logistic",
        penalty: Any = "per-feature",
        norm: str = "l2",
        groups: Any = None,
        l1_ratio: float | None = None,
        log_offset: Any = None,
        intercept: bool = True,
        sample_weight: Any = None,
        kernels: str | None = None,
        threads: int = 1,
    ) -> None:
        loss = as_loss(loss)
        self._targets = several = several_targets(targets, loss)
        first = targets if several is None else several[:, 0]
        self._data = DataTerm(features, first, loss, intercept, sample_weight)
        design = self._data.design
        if intercept:
            self._data.refuse_extreme_targets()
        self._norm = norm_of(
            norm, penalty, design, self._data.weights, groups, log_offset, l1_ratio
        )
        self._log_weights = self._norm.log_weights
        self.loss, self.dtype = self._data.loss, design.dtype
        self._terms = terms_of(self._data, several)
        self._kernels, self._threads = kernels, threads
        self._separate: dict[int, Any] = {}
        self._model: RidgeModel | StackedModels
        if len(self._terms) == 1:
            self._model = RidgeModel(self._data, self._ridge(), kernels, threads)
        else:
            self._model = self._stack(self._terms)
        self.n, self.m = self._model.n, self._model.m

    def _ridge(self) -> RidgePenalty | NoRidge:
        design = self._data.design
        if self._norm.kind == "l2":
            return RidgePenalty(self._log_weights, design.n)
        return NoRidge(self._norm, design.n_coefficients)

    def _stack(self, terms: list[DataTerm], counts: Any = None) -> StackedModels:
        """Return the models of some terms, all targets of a fold one after the other."""
        t = len(self._terms)
        part_of = [q % t for q in range(len(terms))]
        ridges = [self._ridge() for _ in range(t)]
        return StackedModels(
            terms, ridges, part_of, counts, self._kernels, self._threads
        )

    def __repr__(self) -> str:
        rows, columns = self._data.design.features.shape
        several = f", targets={len(self._terms)}" if len(self._terms) > 1 else ""
        return (
            f"Glm({rows} x {columns}, loss={self.loss}{several}, "
            f"penalty={self._log_weights!r}{self._named_norm()}, n={self.n}, "
            f"m={self.m})"
        )

    def _named_norm(self) -> str:
        return "" if self._norm.kind == "l2" else f", norm={self._norm.kind!r}"

    def to(self, backend: str) -> Glm:
        """Return the same model with its data in "cupy" or "numpy" arrays."""
        xp = array_module(backend)
        arguments = self._data.arguments(xp)
        if self._targets is not None:
            arguments["targets"] = to_namespace(self._targets, xp)
        log_weights = self._log_weights.arguments(xp)
        return Glm(
            **arguments,
            **log_weights,
            norm=self._norm.kind,
            l1_ratio=self._norm.l1_ratio,
            kernels=self._kernels,
            threads=self._threads,
        )

    # the objective ----------------------------------------------------------------

    @property
    def parts(self) -> StackedModels | None:
        """The models of several targets, which solvers minimise each by itself."""
        return self._model if isinstance(self._model, StackedModels) else None

    def value(self, x: Array, y: Array) -> float:
        """Return f(x, y)."""
        return self._model.value(x, as_vector("y", y, self.n))

    def grad(self, x: Array, y: Array) -> Array:
        """Return f_Y, shape (n,)."""
        return self._model.grad(x, as_vector("y", y, self.n))

    def hess(self, x: Array, y: Array) -> LinearOperator:
        """Return f_YY, an operator (n, n); it knows its part that x does not enter."""
        return self._model.hess(x, as_vector("y", y, self.n))

    def cross(self, x: Array, y: Array) -> LinearOperator:
        """Return f_XY, an operator (n, m)."""
        return self._model.cross(x, as_vector("y", y, self.n))

    def fixed(self, x: Array) -> Array | None:
        """Return a mask (n,) of the coefficients that x fixes at 0, None without any."""
        return self._model.fixed(x)

    def has_minimiser(self, x: Array) -> bool:
        """Tell whether a minimiser surely exists: every coefficient has a ridge > 0."""
        return self._model.has_minimiser(x)

    def third_product(
        self, x: Array, y: Array, w: Array, dx: Array, dy: Array
    ) -> tuple[Array, Array]:
        """Return the derivatives of (f_XYᵀ w, f_YY w) along (dx, dy), (m,) and (n,).

        What :meth:`Hypergradient.hessp` needs: three products with the features.
        """
        return self._model.third_product(x, as_vector("y", y, self.n), w, dx, dy)

    def curvature_scale(self, x: Array, gradient: Array) -> Array:
        """Return the diagonal curvature, about, of an F whose gradient by x is given.

        F is nearly linear in e^x: d²F/dx² ≈ |dF/dx| on the diagonal.
        """
        return namespace(gradient).abs(gradient)

    def weight_slopes(self, x: Array, y: Array, v: Array) -> Array:
        """Return v' ∂f_Y/∂w_i for each sample weight w_i, shape (N,).

        One product with the features.  The weights are those given as ``sample_weight``,
        ones without it; f divides them by their sum, so that w' of the result is zero.
        """
        return self._model.weight_slopes(x, y, v)

    def grad_x(self, x: Array, y: Array) -> Array:
        """Return ∇_x f at fixed y, (m,): the penalty is quadratic in y, half of f_XYᵀ y."""
        return 0.5 * (self.cross(x, y).T @ y)

    def scale(self, x: Array) -> float:
        """Return ‖f_Y(x, 0)‖, which does not depend on x; computed once."""
        return self._model.scale(x)

    def constants(self, x: Array, y: Array) -> Constants | None:
        """Return bounds that prove errors at (x, y), or None where there are none."""
        return self._model.constants(x, y)

    def log_weight_range(self) -> tuple[Array, Array]:
        """Return the η, (p K,) each, below and above which nothing changes.

        Below, e^η is lost beside the curvature of the loss; above, the coefficient is 0 to
        rounding.  A column without entries has no such η: −∞ and ∞.

        Notes
        -----
        With d_j = Σ_i w_i ℓ'' F_ij², for the largest ℓ'' (that at z = 0 where it is not
        bounded), these are log(ε d_j) and log(d_j / ε), ε the rounding unit: e^η moves with
        d_j in all units of the features.  For features that are operators d_j is one
        number, the mean, from a random product.
        """
        return log_weight_range(self._terms)

    # of norms -----------------------------------------------------------------------

    @functools.cached_property
    def penalty(self) -> Penalty | None:
        """The norm as a penalty of y, which ``Problem(glm)`` takes; None of a ridge."""
        return self.penalty_of(self._model)

    def penalty_of(self, model: RidgeModel | StackedModels) -> Penalty | None:
        """Return the norm of some models as a penalty of their y; None of a ridge."""
        if self._norm.kind == "l2":
            return None
        part_of = list(getattr(model, "part_of", [0]))
        return self._norm.penalty(self._data.design, part_of, len(self._terms))

    def separate(self) -> list[tuple[Problem, slice, slice]]:
        """Return each target as a problem of its own, with its part of x and of y."""
        return self.separate_models(self._model)

    def separate_models(
        self, models: RidgeModel | StackedModels
    ) -> list[tuple[Problem, slice, slice]]:
        """Return models as problems of their own, made once; none of a single one."""
        if not isinstance(models, StackedModels):
            return []
        found = self._separate.get(id(models))
        if found is None:
            penalty = self._norm.penalty(self._data.design, [0], 1)
            m, n = self._norm.m, models.size
            found = [
                (
                    Problem(single, penalty=penalty),
                    slice(k * m, (k + 1) * m),
                    slice(q * n, (q + 1) * n),
                )
                for q, (single, k) in enumerate(
                    zip(models.singles, models.part_of, strict=True)
                )
            ]
            self._separate[id(models)] = found
        return found

    def hess_block(self, x: Array, y: Array, index: Array) -> Any:
        """Return f_YY on an index of y, (k, k); None where features are not explicit."""
        return self._model.hess_block(x, y, index)

    def majoriser(self) -> RidgeModel | None:
        """Return f with curvatures of parabolas above it; None where none is known."""
        model = self._model
        return None if isinstance(model, StackedModels) else model.majoriser()

    def dual_point(self, x: Array, y: Array, free: Array) -> Any:
        """Return the dual point of the loss at y; None with a ridge, or where unknown."""
        return self._model.dual_point(x, y, free)

    # data -------------------------------------------------------------------------

    def predictor(self, features: Any, y: Array) -> Array:
        """Return z = F c + b for other features, shape (N,), (N, K) or (N, t)."""
        design, features = self._data.design, as_features(features)
        self._check_columns(features)
        like = Design(features, design.intercept, design.outputs)
        y = as_vector("y", y, self.n)
        if len(self._terms) == 1:
            return like.forward(y)
        block = y.reshape(len(self._terms), design.n).T
        return like.forward(namespace(y).ascontiguousarray(block))

    def _check_columns(self, features: Any) -> None:
        expected = self._data.design.n_features
        if features.shape[1] != expected:
            raise ValueError(
                f"features must have {expected} columns like those of the model, found "
                f"shape {tuple(features.shape)}"
            )

    def held_out(
        self, features: Any, targets: Any, *, sample_weight: Any = None
    ) -> HeldOutLoss:
        """Return the same loss on other data: an upper objective."""
        design = self._data.design
        found = HeldOutLoss(
            features,
            targets,
            loss=self.loss,
            intercept=design.intercept,
            sample_weight=sample_weight,
            outputs=design.outputs,
        )
        self._check_columns(found._data.design.features)
        return found

    # folds ------------------------------------------------------------------------

    def cross_validation(
        self, folds: Any, *, rng: Any = 0
    ) -> tuple[Problem, HeldOutFolds]:
        """Return the lower levels of all folds as one problem, and their held-out loss.

        Parameters
        ----------
        folds : int or sequence of (train, test)
            Pairs of indices, or of masks, as ``splitter.split(X, y)`` yields them; they
            are read once.  A number K: the samples are shuffled, classes spread evenly.
        rng : int or Generator
            Of the shuffle; the same folds by default.

        Returns
        -------
        problem : Problem
            f = Σ_k f_k over y (K n,), one fold after the other; f_k is the mean over the
            training samples of fold k, so that x means the same in each fold and in the
            model of all samples.
        upper : HeldOutFolds
            The mean loss of all held-out predictions, not a mean of means.

        Raises
        ------
        ValueError
            Naming the fold, where it lacks a class or training samples.

        Notes
        -----
        Value, gradient and Hessian product read the features once for all folds.

        Examples
        --------
        >>> import numpy as np
        >>> import sparse_argdiff as sad
        >>> from sparse_argdiff.linear_model import Glm
        >>> F, t = np.eye(6)[:, :2] + 1.0, np.arange(6.0)
        >>> glm = Glm(F, t, loss="squared", penalty="scalar")
        >>> problem, upper = glm.cross_validation(3)
        >>> found = sad.Hypergradient(problem, upper).evaluate(np.array([0.0]))
        >>> glm.split(found.solution.y).shape  # coefficients and intercept of each fold
        (3, 3)
        """
        listed = list_folds(folds, self._data, rng)
        lower = FoldedGlm(self, listed, self.fold_models(listed))
        return Problem(lower), lower.held_out()

    def fold_models(self, folds: list[Any]) -> StackedModels:
        """Return the models of all folds, one fold after the other."""
        terms = training_terms(self._data, folds)
        each = [
            term if own is self._data else term.like(prepared=own.targets)
            for term in terms
            for own in self._terms
        ]
        counts = [fold.train for fold in folds for _ in self._terms]
        return self._stack(each, counts)

    def leave_one_out(
        self, *, probes: int | None = None, rng: Any = 0, rtol: float = 1e-3
    ) -> tuple[Problem, LeaveOneOut | LeaveOneOuts]:
        """Return this model as a problem, and its approximate leave-one-out loss.

        Parameters
        ----------
        probes : int, optional
            Random right-hand sides by which the leverages are estimated.  By default they
            are computed where n ≤ 2000, by n products, else estimated by 16; the
            bias that this leaves in the value is taken out (jackknife); what is left is told
            by ``upper.standard_error(x, y)``.
        rng : int or Generator
            Of the probes: an int gives the same estimates, and a smooth function, each time.
        rtol : float
            Of the solves for the probes.

        Returns
        -------
        problem : Problem
            Of all samples.
        upper : LeaveOneOut
            Σ_i w_i ℓ(z̃_i, t_i) / Σ_i w_i, z̃_i the predictor of sample i by the model
            without it, in which the others keep their weights w_j / Σ w.  Its methods
            ``predictors``, ``leverages``, ``losses`` and ``standard_error`` take (x, y).

        Raises
        ------
        ValueError
            For a norm other than "l2", and for several classes with n > 2000.

        Warns
        -----
        ConvergenceWarning
            Where a leverage c_i h_i is above ½: one Newton step may then not be enough; and
            where one is too near 1 for an estimate by so few probes.

        Notes
        -----
        z̃_i = z_i + d_i h_i / (1 − c_i h_i) with d = ℓ', c = ℓ'' and the leverage
        h_i = (w_i / Σ w) a_i' H⁻¹ a_i, H = f_YY: exact for the squared loss, one Newton step
        for others.  The gradient takes the derivative of the leverages: for estimated ones
        as many solves again.

        References
        ----------
        K. Rahnama Rad, A. Maleki, "A scalable estimate of the out-of-sample prediction
        error via approximate leave-one-out cross-validation", J. R. Stat. Soc. B 82 (2020)
        965-996.

        Examples
        --------
        >>> import numpy as np
        >>> import sparse_argdiff as sad
        >>> from sparse_argdiff.linear_model import Glm
        >>> F, t = np.eye(6)[:, :2] + 1.0, np.arange(6.0)
        >>> glm = Glm(F, t, loss="squared", penalty="scalar")
        >>> problem, upper = glm.leave_one_out()
        >>> value, gradient = sad.Hypergradient(problem, upper)(np.array([0.0]))
        """
        if self._norm.kind != "l2":
            raise ValueError(
                f"leave_one_out needs norm='l2', found {self._norm.kind!r}: use "
                "cross_validation"
            )
        each = [
            LeaveOneOut(
                RidgeModel(term, self._ridge(), self._kernels, self._threads),
                probes=probes,
                rng=rng,
                rtol=rtol,
            )
            for term in self._terms
        ]
        upper = each[0] if len(each) == 1 else LeaveOneOuts(each)
        return Problem(self), upper

    def given_weights(self) -> Array:
        """Return the sample weights (N,) as they were given, ones without any."""
        return self._data.given_weights()

    def split(self, y: Array) -> Array:
        """Return the solutions of the folds, (K, n), from the stacked one (K n,)."""
        y = as_vector("y", y)
        if y.shape[0] % self.n or not y.shape[0]:
            raise ValueError(
                f"y must have {self.n} entries for each fold, found shape "
                f"{tuple(y.shape)}"
            )
        return y.reshape(-1, self.n)
