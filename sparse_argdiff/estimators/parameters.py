"""What the two estimators have in common, in the words of their docstrings."""

from __future__ import annotations

from typing import TypeVar

Kind = TypeVar("Kind", bound=type)

PENALTIES = """    norm : {"l2", "l1", "elastic-net"}
        Of the penalty: ½ e^η c²; e^η |c|, which selects columns; or
        e^η (ρ |c| + ½ (1 − ρ) c²).  The latter two need folds, and "moments" is then
        [1, log v_j^½]: x₂ = 1 stands for standardised columns with every norm.
    l1_ratio : float
        ρ of the elastic net.
    penalties : str, list of str or table Z, optional
        What the log-penalties depend on: log-penalty of column j = Σ_k Z_jk x_k.

        - "moments", the default without groups and descriptors: Z = [1, log v_j], v_j the
          variance of the column.  x₂ = 0 penalises the columns as they are, x₂ = 1 as if
          they were standardised, and it is held to [−1, 2];
        - "single": one penalty for all columns;
        - "groups", "descriptors": see these parameters; the default where they are given;
        - "per-feature", "per-coefficient" (a column and a class): one each, around a single
          penalty of standardised columns, held by ``prior``;
        - several of these names, whose tables stand side by side;
        - a table Z itself, dense or sparse, with a row for each column of X.

        Columns of Z that depend on those before them are dropped, and named in
        ``summary()``.
    groups : labels, optional
        A penalty for each group of *columns* of X: a label for each column; a mapping of
        labels to names or indices of columns, or a list of such lists (the rest is a group
        of its own); a function of the names of the columns that returns their labels;
        "blocks", the part of each name before "__", which a ``ColumnTransformer`` with
        ``set_output(transform="pandas")`` writes; or a fitted ``ColumnTransformer``.
        Groups of *rows* are given to ``fit``.
    descriptors : array, sparse matrix or frame (p, k), optional
        What is known of each column of X, such as its degree or its document frequency; a
        level is added where no combination of them is constant.
    prior : float, optional
        Standard deviation of the log-penalties of single columns around Z x.  Where it is
        given the columns have deviations of their own; "per-feature" takes 1.
"""

FITTING = """    keep : {"best", "learned"}
        "best" keeps the best single penalty by the same folds where the learned ones are
        not better by the standard error of the difference.
    fit_intercept : bool
        Whether there is a constant; it is not penalised.
"""

SEARCH = """    tol : float
        The search ends when a change of the log-penalties by one would lower the loss of
        the folds by no more than ``tol`` of itself, or two steps by 3 % of that, or, with
        up to ten parameters, by 2 % of the gain over the best single penalty.
    max_iter : int
        Steps of the search.
    warm_start : bool
        Start the search from the last penalties.
    random_state : int, RandomState or None
        Of the folds.
    n_jobs : int, optional
        Threads of compiled products with sparse matrices.
    verbose : int
        Log the steps of the search to the logger "sparse_argdiff".
    progress : bool
        Show a progress bar when tqdm is installed.
"""

FOUND = """        e^η and η, in the units of the columns as given.
    x_ : array (m,)
        Parameters of the log-penalties, named by ``penalty_names_``.
    kept_ : str
        "learned" or "single".
    cv_loss_, single_cv_loss_, learned_cv_loss_ : float
        Pooled loss of the held-out rows: as kept, of the best single penalty
        (``single_penalty_``), as learned.
    cv_loss_change_, cv_loss_change_error_ : float
        Learned minus single, and its standard error over the rows.
    cv_loss_per_fold_ : array (K,)
        Also ``single_cv_loss_per_fold_`` and ``learned_per_fold_``.
    oof_prediction_ : array (N,)
        Linear predictor of each row by the model that did not see it.
    gradient_norm_, gradient_error_ : float
        Of the search's last point: its projected gradient, and an estimate of the error.
    descent_ : str
        What is known of that gradient: "proven", "estimated" or "not shown".
    history_, n_iter_, converged_, n_products_
        The search: a record of each step, their number, whether it met ``tol``, and
        Hessian products in all.
    at_bound_, notes_, dropped_ : tuple of str
        Parameters at an end of their range; caveats; columns of Z that were dropped.
    n_features_in_, feature_names_in_
        Of X.
"""

_PLACES = {
    "    penalties :\n": PENALTIES,
    "    keep :\n": FITTING,
    "    tol :\n": SEARCH,
    "    cv_loss_ :\n": FOUND,
}


def described(kind: Kind) -> Kind:
    """Return the class with the common paragraphs where its docstring names them."""
    text = kind.__doc__
    if text is None:  # python -OO
        return kind
    for place, paragraph in _PLACES.items():
        if text.count(place) != 1:
            raise TypeError(f"{kind.__name__} has no line {place.strip()!r}")
        text = text.replace(place, paragraph)
    kind.__doc__ = text
    return kind
