"""The influence of each training sample on the upper loss, from a computed adjoint.

    I_i = ∂F/∂w_i = − λ' ∂f_Y/∂w_i,        F without sample i ≈ F − w_i I_i

w_i weighs sample i in the lower objective.  λ is the adjoint of the hypergradient: all N
influences cost one product with the features, and no solve.
"""

from __future__ import annotations

from ..arrays import Array, copied
from ..problem.problem import Problem
from .result import HypergradientResult


def influence(problem: Problem, result: HypergradientResult) -> Array:
    """Return ∂F/∂w_i for the weight w_i of each training sample, shape (N,).

    Parameters
    ----------
    problem : Problem
        The lower level, whose objective has samples: a ``Glm``, or any with a method
        ``weight_slopes(x, y, v)`` that returns v' ∂f_Y/∂w_i, shape (N,).
    result : HypergradientResult
        Of ``Hypergradient(problem, upper).evaluate(x)``.

    Returns
    -------
    array (N,)
        In the units of F per unit of weight.  A positive entry: without sample i F
        decreases by about w_i I_i.

    Raises
    ------
    TypeError
        When the objective has no samples, and for another result: ``F(x)`` is a pair.

    Notes
    -----
    The weights are ``sample_weight`` as given, ones without it.  ``Glm`` divides them by
    their sum: Σ w_i I_i = 0, and leaving a sample out keeps the penalty per sample.

    The error is, to first order, that of the adjoint and of the solution.  The derivative
    predicts a removal where one sample changes y little: N large, or a strong penalty.

    References
    ----------
    F. R. Hampel, "The influence curve and its role in robust estimation", J. Amer.
    Statist. Assoc. 69 (1974) 383-393.
    P. W. Koh, P. Liang, "Understanding black-box predictions via influence functions",
    ICML 2017, arXiv:1703.04730.

    Examples
    --------
    >>> import numpy as np
    >>> import sparse_argdiff as sad
    >>> glm = sad.linear_model.Glm(
    ...     np.array([[1.0], [1.0], [1.0]]), np.array([0.0, 0.0, 3.0]), loss="squared",
    ...     intercept=False,
    ... )
    >>> held_out = glm.held_out(np.array([[1.0]]), np.array([0.0]))
    >>> problem = sad.Problem(glm)
    >>> found = sad.Hypergradient(problem, held_out).evaluate(np.array([-30.0]))
    >>> sad.influence(problem, found).round(3)  # the third sample does the harm
    array([-0.333, -0.333,  0.667])
    """
    objective = problem.objective
    slopes = getattr(objective, "weight_slopes", None)
    if not callable(slopes):
        raise TypeError(
            "problem.objective must have the method weight_slopes, as Glm does; "
            f"{type(objective).__name__} lacks it"
        )
    if not isinstance(result, HypergradientResult):
        raise TypeError(
            "result must be the HypergradientResult of F.evaluate(x), F = "
            f"Hypergradient(problem, upper), found {type(result).__name__}"
        )
    x, y = result.solution.x, result.solution.y
    # Copies: a user's function may write into what it is given.
    at = copied(x), copied(y)
    along: Array = slopes(*at, copied(result.adjoint.adjoint[: y.shape[0]]))
    # λ belongs to the function that is minimised, −f for a maximum.
    return along if problem.maximize else -along
