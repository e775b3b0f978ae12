"""Folds as one stacked problem: against refits one fold at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from problems import counting_operator
from scipy import sparse

import sparse_argdiff as sad
from sparse_argdiff.linear_model import Glm, HeldOutFolds
from sparse_argdiff.linear_model.hessian_product.one_pass import products_of

RNG = np.random.default_rng(11)
N, P = 40, 5
F = RNG.standard_normal((N, P))
WEIGHTS = RNG.integers(0, 3, N).astype(float)
LOSSES = ["squared", "logistic", "poisson", "huber", "multinomial"]
LOSSES += ["gamma", "tweedie", "quantile"]
Z = np.stack([np.ones(P), np.linspace(-1.0, 1.0, P)], axis=1)
PENALTIES = {"scalar": "scalar", "per-feature": "per-feature", "table": Z}


def targets(loss):
    rng = np.random.default_rng(3)
    if loss == "logistic":
        return (F[:, 0] + rng.standard_normal(N) > 0).astype(float)
    if loss == "poisson":
        return rng.poisson(1.0, N).astype(float)
    if loss in {"gamma", "tweedie"}:
        return rng.gamma(2.0, 0.5, N) * (
            rng.random(N) < 0.8 if loss == "tweedie" else 1
        )
    if loss == "multinomial":
        return np.r_[np.arange(3), rng.integers(0, 3, N - 3)]
    return F @ np.arange(P) + rng.standard_normal(N)


def kfold(count, seed=0):
    held = np.random.default_rng(seed).permutation(N) % count
    return [(np.nonzero(held != k)[0], np.nonzero(held == k)[0]) for k in range(count)]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_folds_are_refits(loss, penalty, kind, intercept):
    """Coefficients, pooled loss and gradient, with weights of which some are zero."""
    t, folds = targets(loss), kfold(4)
    features = sparse.csr_array(F) if kind == "csr" else F
    given = {"loss": loss, "penalty": PENALTIES[penalty], "intercept": intercept}
    glm = Glm(features, t, sample_weight=WEIGHTS, **given)
    problem, upper = glm.cross_validation(folds)
    x = np.random.default_rng(5).standard_normal(glm.m) - 1.0
    found = sad.Hypergradient(problem, upper, tol=1e-11).evaluate(x)
    value, gradient, total = 0.0, 0.0, 0.0
    for k, (train, test) in enumerate(folds):
        one = Glm(F[train], t[train], sample_weight=WEIGHTS[train], **given)
        held = one.held_out(F[test], t[test], sample_weight=WEIGHTS[test])
        alone = sad.Hypergradient(sad.Problem(one), held, tol=1e-11).evaluate(x)
        y = glm.split(found.solution.y)[k]
        np.testing.assert_allclose(y, alone.solution.y, 1e-6, 1e-7)
        share = WEIGHTS[test].sum()
        value, total = value + share * alone.value, total + share
        gradient = gradient + share * alone.gradient
        assert upper.fold_losses(found.solution.y)[k] == pytest.approx(alone.value)
        assert upper.shares[k] == pytest.approx(share / WEIGHTS.sum())
    assert upper.total == pytest.approx(total)
    assert found.value == pytest.approx(value / total, rel=1e-9)
    np.testing.assert_allclose(found.gradient, gradient / total, 1e-6, 1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives(loss):
    glm = Glm(F, targets(loss), loss=loss, penalty=Z, sample_weight=WEIGHTS)
    problem, upper = glm.cross_validation(3)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(glm.m), 0.3 * rng.standard_normal(problem.objective.n)
    f = problem.objective
    assert f.n == 3 * glm.n
    assert sad.check_derivatives(f, x, y)
    H = f.hess(x, y)
    dense = H.todense()
    np.testing.assert_allclose(dense, dense.T, atol=1e-14)
    np.testing.assert_allclose(H.diagonal(), np.diag(dense), rtol=1e-12)
    core, ridge = H.split
    np.testing.assert_allclose(core.todense() + np.diag(ridge), dense, atol=1e-13)
    blocks = dense.reshape(3, glm.n, 3, glm.n)
    for k in range(3):
        for other in set(range(3)) - {k}:
            assert np.all(blocks[k, :, other] == 0.0)
    assert sad.check_hypergradient(sad.Hypergradient(problem, upper, tol=1e-12), x)
    step = 1e-6 * rng.standard_normal(f.n)
    change = upper.value(x, y + step) - upper.value(x, y - step)
    assert upper.grad_y(x, y) @ step == pytest.approx(change / 2, rel=1e-5)


def test_weights_repeat_and_remove_rows():
    """Integer weights are repeated rows, a weight of zero is no row: x, losses, y."""
    t, folds = targets("logistic"), kfold(4)
    repeated = np.repeat(np.arange(N), WEIGHTS.astype(int))
    places = [np.nonzero(repeated == i)[0] for i in range(N)]
    many = [
        tuple(np.concatenate([places[i] for i in part]) for part in fold)
        for fold in folds
    ]
    x, found = np.array([-2.0]), []
    for features, labels, weights, split in (
        (F, t, WEIGHTS, folds),
        (F[repeated], t[repeated], None, many),
    ):
        glm = Glm(features, labels, penalty="scalar", sample_weight=weights)
        problem, upper = glm.cross_validation(split)
        result = sad.Hypergradient(problem, upper, tol=1e-12).evaluate(x)
        losses = upper.fold_losses(result.solution.y)
        found.append((result.value, *result.gradient, *losses, *result.solution.y))
    np.testing.assert_allclose(found[0], found[1], 1e-8, 1e-10)


def test_the_pooled_loss_is_no_mean_of_means():
    """Unequal folds: one held-out sample counts as one sample."""
    folds = [(np.arange(1, N), [0]), (np.arange(10), np.arange(10, N))]
    t = targets("squared")
    glm = Glm(F, t, loss="squared", penalty="scalar")
    problem, upper = glm.cross_validation(folds)
    y = sad.solve(problem, np.zeros(1)).y
    errors = [
        0.5 * (glm.predictor(F[test], y_k) - t[test]) ** 2
        for (_, test), y_k in zip(folds, glm.split(y), strict=True)
    ]
    pooled = np.concatenate(errors)
    assert upper.value(None, y) == pytest.approx(pooled.mean())
    assert not np.isclose(pooled.mean(), np.mean([e.mean() for e in errors]))


def test_rows_that_do_not_count_may_be_anything():
    """A huge row without weight changes nothing; held-out rows overflow no gradient."""
    features, weights = F.copy(), np.ones(N)
    features[3], weights[3] = 1e200, 0.0
    t = targets("poisson")
    kept = np.arange(N) != 3
    found = []
    for rows in (np.full(N, True), kept):
        places = np.cumsum(rows) - 1
        folds = [
            tuple(places[part[rows[part]]] for part in fold)
            for fold in kfold(4, seed=2)
        ]
        glm = Glm(
            features[rows],
            t[rows],
            loss="poisson",
            penalty="scalar",
            sample_weight=weights[rows],
        )
        problem, upper = glm.cross_validation(folds)
        result = sad.Hypergradient(problem, upper, tol=1e-11).evaluate(np.zeros(1))
        found.append((result.value, *result.gradient, *result.solution.y))
    np.testing.assert_allclose(found[0], found[1], 1e-7, 1e-9)


def test_a_fold_that_holds_nothing_out_is_skipped():
    folds = [*kfold(3), (np.arange(N), [])]
    glm = Glm(F, targets("squared"), loss="squared", penalty="scalar")
    problem, upper = glm.cross_validation(folds)
    found = sad.Hypergradient(problem, upper).evaluate(np.zeros(1))
    three = sad.Hypergradient(*glm.cross_validation(kfold(3))).evaluate(np.zeros(1))
    assert found.value == pytest.approx(three.value)
    assert np.isnan(upper.fold_losses(found.solution.y)[3])
    assert upper.shares[3] == 0.0


def test_splits_are_read_once():
    calls = []

    def pairs():
        calls.append(1)
        yield from kfold(3)

    glm = Glm(F, targets("squared"), loss="squared", penalty="scalar")
    problem, upper = glm.cross_validation(pairs())
    H = sad.Hypergradient(problem, upper)
    assert H(np.zeros(1))[0] == H(np.zeros(1))[0]
    assert calls == [1]


def test_masks_are_indices():
    masks = [(~np.isin(np.arange(N), b), np.isin(np.arange(N), b)) for _, b in kfold(3)]
    glm = Glm(F, targets("squared"), loss="squared", penalty="scalar")
    y = np.random.default_rng(0).standard_normal(3 * glm.n)
    values = []
    for folds in (kfold(3), masks):
        problem, upper = glm.cross_validation(folds)
        values.append((problem.objective.value(np.zeros(1), y), upper.value(None, y)))
    assert values[0] == values[1]


def test_a_number_of_folds():
    """Shuffled, the same each time, classes spread evenly: sorted labels do no harm."""
    t = np.sort(targets("logistic"))
    glm = Glm(F, t, penalty="scalar")
    (one, _), (again, _), (other, _) = (
        glm.cross_validation(5),
        glm.cross_validation(5),
        glm.cross_validation(5, rng=1),
    )
    tests = [
        np.stack([fold.test for fold in p.objective._folds])
        for p in (one, again, other)
    ]
    np.testing.assert_array_equal(tests[0], tests[1])
    assert np.any(tests[0] != tests[2])
    np.testing.assert_array_equal(tests[0].sum(axis=0), 1.0)
    positives = tests[0] @ t
    assert positives.max() - positives.min() <= 1.0


def test_infinite_weights_in_folds():
    offset = np.array([0.0, np.inf, -np.inf, 0.0, 0.0])
    glm = Glm(F, targets("logistic"), penalty="scalar", log_offset=offset)
    without = Glm(
        F[:, offset < np.inf],
        targets("logistic"),
        penalty="scalar",
        log_offset=offset[offset < np.inf],
    )
    x, found = np.array([-3.0]), []
    for model in (glm, without):
        problem, upper = model.cross_validation(kfold(4))
        H = sad.Hypergradient(problem, upper, tol=1e-11, y0=np.ones(4 * model.n))
        found.append(H.evaluate(x))
    assert found[0].value == pytest.approx(found[1].value, rel=1e-10)
    assert found[0].gradient == pytest.approx(found[1].gradient, rel=1e-6)
    assert np.all(glm.split(found[0].solution.y)[:, 1] == 0.0)
    assert "coefficient 1 of infinite weight" in found[0].solution.warnings[0]


def test_influence_of_samples_on_the_pooled_loss():
    """Against a change of the weight in the lower level alone."""
    t, folds = targets("logistic"), kfold(4)
    glm = Glm(F, t, penalty="scalar")
    problem, upper = glm.cross_validation(folds)
    x = np.array([-2.0])
    H = sad.Hypergradient(problem, upper, tol=1e-12)
    influence = sad.influence(problem, H.evaluate(x))
    for i in (0, 7):
        values = []
        for step in (1e-4, -1e-4):
            weights = np.ones(N)
            weights[i] += step
            moved = Glm(F, t, penalty="scalar", sample_weight=weights)
            y = sad.solve(moved.cross_validation(folds)[0], x, tol=1e-13).y
            values.append(upper.value(x, y))
        assert influence[i] == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype(dtype):
    glm = Glm(F.astype(dtype), targets("logistic"), penalty="scalar")
    problem, upper = glm.cross_validation(3)
    found = sad.Hypergradient(problem, upper, tol=1e-3).evaluate(np.zeros(1))
    assert found.solution.y.dtype == dtype
    assert upper.grad_y(None, found.solution.y).dtype == dtype


def test_minimize_and_split():
    glm = Glm(F, targets("logistic"), penalty=Z)
    problem, upper = glm.cross_validation(5)
    result = sad.minimize(problem, upper, np.zeros(2), bounds=(-12, 4))
    assert result.success
    assert glm.split(result.y).shape == (5, glm.n)
    with pytest.raises(ValueError, match="entries for each fold"):
        glm.split(result.y[:-1])


def test_names():
    glm = Glm(F, targets("logistic"), penalty="scalar")
    problem, upper = glm.cross_validation(5)
    assert "5 folds" in repr(problem.objective)
    assert isinstance(upper, HeldOutFolds)
    assert "5 folds" in repr(upper)
    assert problem.objective.to("numpy").n == problem.objective.n
    assert upper.to("numpy").total == upper.total


# wrong folds --------------------------------------------------------------------------

HALF = np.arange(20)
WRONG = {
    "one fold": (1, ValueError, "from 2 to"),
    "more folds than samples": (41, ValueError, "from 2 to"),
    "a name": ("loo", TypeError, "a number or"),
    "a fraction": (2.5, TypeError, "a number or"),
    "no fold": ([], ValueError, "at least one"),
    "no pair": ([HALF], ValueError, "pairs"),
    "both": ([(HALF, HALF[10:])], ValueError, "fold 0 must not hold out"),
    "outside": ([(HALF, [40])], ValueError, "held-out samples of fold 0"),
    "negative": ([(HALF, [-1])], ValueError, "from 0 to 39"),
    "floats": ([(HALF + 0.0, HALF + 20)], TypeError, "indices or a mask"),
    "no training samples": ([([], HALF)], ValueError, "fold 0 must have training"),
    "nothing held out": ([(HALF, [])], ValueError, "hold out samples"),
    "a mask of another size": ([(HALF < 3, HALF > 2)], ValueError, r"a mask \(40,\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_folds(case):
    folds, error, message = WRONG[case]
    glm = Glm(F, targets("squared"), loss="squared", penalty="scalar")
    with pytest.raises(error, match=message):
        glm.cross_validation(folds)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
@pytest.mark.parametrize("lacks", [0, 1])
def test_a_class_that_a_fold_lacks_is_named(loss, lacks, intercept):
    t = targets(loss)
    rest = np.arange(N)
    held = rest[t == lacks]
    folds = [kfold(2)[0], (np.setdiff1d(rest, held), held)]
    glm = Glm(F, t, loss=loss, penalty="scalar", intercept=intercept)
    with pytest.raises(ValueError, match=f"fold 1 lacks class {lacks}"):
        glm.cross_validation(folds)


def test_counts_that_are_all_zero_in_a_fold():
    t = np.where(np.arange(N) < 3, 2.0, 0.0)
    folds = [(np.arange(3, N), np.arange(3))]
    glm = Glm(F, t, loss="poisson", penalty="scalar")
    with pytest.raises(ValueError, match="fold 0: targets must not all be 0"):
        glm.cross_validation(folds)


# several targets ----------------------------------------------------------------------

Y = np.random.default_rng(9).standard_normal((N, 3)) * [1.0, 1e3, 1e-3]


@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_several_targets_are_models_side_by_side(penalty, kind):
    features = sparse.csr_array(F) if kind == "csr" else F
    given = {"loss": "squared", "penalty": PENALTIES[penalty], "sample_weight": WEIGHTS}
    glm = Glm(features, Y, **given)
    singles = [Glm(features, Y[:, j], **given) for j in range(3)]
    assert glm.n == 3 * singles[0].n
    assert glm.m == 3 * singles[0].m
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(glm.m), rng.standard_normal(glm.n)
    assert sad.check_derivatives(glm, x, y)
    held = glm.held_out(F[::3], Y[::3])
    values = 0.0
    found = sad.Hypergradient(sad.Problem(glm), held, tol=1e-11).evaluate(x)
    assert found.certificate.descent == "proven"
    xs = x.reshape(3, -1)
    for j, single in enumerate(singles):
        of_one = single.held_out(F[::3], Y[::3, j])
        alone = sad.Hypergradient(sad.Problem(single), of_one, tol=1e-11)
        alone = alone.evaluate(xs[j])
        values += alone.value
        own = found.solution.y.reshape(3, -1)[j]
        np.testing.assert_allclose(own, alone.solution.y, 1e-6, 1e-9)
        gradient = found.gradient.reshape(3, -1)[j]
        np.testing.assert_allclose(gradient, alone.gradient, 1e-5, 1e-9)
        column = glm.predictor(F, found.solution.y)[:, j]
        np.testing.assert_allclose(column, single.predictor(F, own))
    assert found.value == pytest.approx(values, rel=1e-9)


def test_several_targets_in_folds():
    glm = Glm(F, Y, loss="squared", penalty="scalar")
    problem, upper = glm.cross_validation(kfold(4))
    assert problem.objective.n == 4 * glm.n
    x = np.array([-1.0, 0.0, 1.0])
    found = sad.Hypergradient(problem, upper, tol=1e-11).evaluate(x)
    values = 0.0
    for j in range(3):
        single = Glm(F, Y[:, j], loss="squared", penalty="scalar")
        of_one = sad.Hypergradient(*single.cross_validation(kfold(4)), tol=1e-11)
        alone = of_one.evaluate(x[j : j + 1])
        values += alone.value
        assert found.gradient[j] == pytest.approx(alone.gradient[0], rel=1e-6)
        own = glm.split(found.solution.y).reshape(4, 3, -1)[:, j]
        np.testing.assert_allclose(own, single.split(alone.solution.y), 1e-6, 1e-9)
    assert found.value == pytest.approx(values, rel=1e-9)


def test_one_column_of_targets_is_one_target():
    one = Glm(F, Y[:, :1], loss="squared")
    other = Glm(F, Y[:, 0], loss="squared")
    x, y = np.zeros(P), np.ones(P + 1)
    assert one.n == other.n
    assert one.value(x, y) == other.value(x, y)


@pytest.mark.parametrize("loss", ["logistic", "poisson", "huber"])
def test_two_dimensions_of_other_losses_are_refused(loss):
    with pytest.raises(ValueError, match="1-D"):
        Glm(F, np.ones((N, 2)), loss=loss)


# what the folds cost ------------------------------------------------------------------


def test_a_compiled_pass_over_all_rows_forgets_rows_that_do_not_count():
    """At y where a held-out row's predictor is infinite, and where it is merely large."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(6)
    rows, count = 3000, 20
    features = sparse.random_array((rows, count), density=0.2, rng=rng, format="csr")
    t = (rng.random(rows) > 0.5).astype(float)
    wild = features.tolil()
    wild[0, :2] = 1e200, -1e200
    y = rng.standard_normal(3 * (count + 1))
    held = np.arange(rows) % 3
    found = {}
    for name, scale in (("tame", 1.0), ("large", 1.0), ("infinite", 1e200)):
        one = features if name == "tame" else wild.tocsr()
        glm = Glm(one, t, penalty="scalar", kernels="compiled")
        f = glm.cross_validation([(held != k, held == k) for k in range(3)])[
            0
        ].objective
        own = scale * y
        with np.errstate(all="ignore"):
            found[name] = (
                f.grad(np.zeros(1), own),
                f.models.rows[0].curvature(f.models.predictors(own)[0]),
            )
    size = count + 1
    # The first fold holds the wild row out; at moderate y all samples are computed.
    np.testing.assert_allclose(found["large"][0][:size], found["tame"][0][:size], 1e-12)
    assert found["large"][1].diagonal.shape == (rows,)
    assert np.isfinite(found["infinite"][0][:size]).all()
    assert found["infinite"][1].diagonal.shape == (rows - np.sum(held == 0),)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("intercept", [True, False])
def test_compiled_products_of_several_models_are_those_of_the_design(
    intercept, dtype, threads
):
    """Predictors and gradients of K models: rows of half a cache line, a line, and more."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(7)
    features = sparse.random_array((300, 40), density=0.1, rng=rng, format="csr")
    features = features.astype(dtype)
    glm = Glm(
        features,
        (rng.random(300) > 0.5).astype(float),
        intercept=intercept,
        kernels="compiled",
        threads=threads,
    )
    design, products = (
        glm._data.design,
        products_of(glm._data.design, "compiled", threads),
    )
    for count in (2, 4, 5, 9, 17):
        ys = [rng.standard_normal(design.n).astype(dtype) for _ in range(count)]
        slopes = [rng.standard_normal(300).astype(dtype) for _ in range(count)]
        pairs = [(products.forward(ys), [design.forward(y) for y in ys])]
        pairs.append((products.backward(slopes), [design.backward(s) for s in slopes]))
        for found, want in pairs:
            tolerance = 1e-12 if dtype is np.float64 else 1e-4
            np.testing.assert_allclose(found, want, tolerance, tolerance)


def wide(rng, N=300, p=500):
    features = sparse.random_array((N, p), density=0.05, rng=rng, format="csr")
    features.data[:] = rng.standard_normal(features.nnz)
    t = (features @ rng.standard_normal(p) > 0).astype(float)
    return features, t


@pytest.mark.parametrize("penalty", ["scalar", "per-feature"])
@pytest.mark.parametrize("kernels", ["reference", "compiled"])
def test_each_fold_takes_the_products_that_it_takes_alone(kernels, penalty):
    """Products of solve and adjoint, summed over the folds, within 10 % of alone."""
    if kernels == "compiled":
        pytest.importorskip("numba")
    features, t = wide(np.random.default_rng(3))
    glm = Glm(features, t, kernels=kernels, penalty=penalty)
    problem, upper = glm.cross_validation(5)
    x = np.full(glm.m, -6.0)
    found = sad.Hypergradient(problem, upper).evaluate(x, certify=False)
    solves = adjoints = 0
    for fold in problem.objective._folds:
        train, test = fold.train > 0, fold.test > 0
        one = Glm(features[train], t[train], kernels=kernels, penalty=penalty)
        held = one.held_out(features[test], t[test])
        alone = sad.Hypergradient(sad.Problem(one), held).evaluate(x, certify=False)
        solves += alone.solution.n_hvp
        adjoints += alone.adjoint.n_hvp
    assert found.solution.n_hvp == pytest.approx(solves, rel=0.1)
    assert found.adjoint.n_hvp == pytest.approx(adjoints, rel=0.1)


def test_features_are_read_once_for_all_folds():
    """Products with blocks, not one for each fold."""
    F64, t = wide(np.random.default_rng(4), 60, 20)
    operator, reads = counting_operator(F64.toarray())
    glm = Glm(operator, t, penalty="scalar")
    problem, _ = glm.cross_validation(5)
    y = np.random.default_rng(0).standard_normal(problem.objective.n)
    x = np.zeros(1)
    problem.objective.value(x, y)
    assert len(reads) == 1
    problem.objective.grad(x, y)
    assert len(reads) == 2
    H = problem.objective.hess(x, y)
    assert len(reads) == 2
    H @ y
    assert len(reads) == 4


def test_a_failing_fold_is_named():
    F0 = F.copy()
    F0[:, 0] = np.where(np.arange(N) < 20, np.arange(N) < 10, 0.0)
    t = (np.arange(N) < 10).astype(float)
    t[20:] = np.random.default_rng(0).integers(0, 2, 20)
    offset = np.array([-np.inf, 0.0, 0.0, 0.0, 0.0])
    glm = Glm(F0, t, penalty="scalar", log_offset=offset)
    folds = [kfold(2)[0], (np.arange(20), np.arange(20, N))]
    problem, _ = glm.cross_validation(folds)
    found = sad.solve(problem, np.array([-1.0]), on_failure="ignore", maxiter=3)
    assert any(
        "part 1 of 2" in note or "part 0 of 2" in note for note in found.warnings
    )


@pytest.mark.parametrize("M", ["auto", None, "identity", "builder"])
def test_preconditioners_serve_all_folds(M):
    features, t = wide(np.random.default_rng(5), 80, 30)
    glm = Glm(features, t, penalty="per-feature")
    problem, upper = glm.cross_validation(4)
    x = np.linspace(-6.0, 0.0, glm.m)
    given = {
        "identity": np.eye(glm.n),
        "builder": lambda K: sad.preconditioners.jacobi(K.diagonal()),
    }.get(M, M)
    v = upper.grad_y(x, np.ones(problem.objective.n))
    solution = sad.solve(problem, x, M=given, tol=1e-11)
    plain = sad.solve(problem, x, tol=1e-11)
    np.testing.assert_allclose(solution.y, plain.y, 1e-7, 1e-9)
    adjoint = sad.vjp(problem, plain, v, M=given, rtol=1e-11)
    expected = sad.vjp(problem, plain, v, rtol=1e-11)
    np.testing.assert_allclose(adjoint.x, expected.x, 1e-7, 1e-12)


def test_forward_and_several_columns():
    glm = Glm(F, targets("logistic"), penalty="per-feature")
    problem, _ = glm.cross_validation(3)
    x = np.linspace(-3.0, 0.0, P)
    solution = sad.solve(problem, x, tol=1e-12)
    J = sad.derivative(problem, solution, rtol=1e-12)
    dense = -np.linalg.solve(
        problem.objective.hess(x, solution.y).todense(),
        problem.objective.cross(x, solution.y).todense(),
    )
    U = np.random.default_rng(0).standard_normal((P, 3))
    np.testing.assert_allclose(J @ U, dense @ U, 1e-7, 1e-10)
    V = np.random.default_rng(0).standard_normal((J.shape[0], 2))
    np.testing.assert_allclose(J.T @ V, dense.T @ V, 1e-7, 1e-10)
    tangent = sad.jvp(problem, solution, U[:, 0], rtol=1e-12)
    np.testing.assert_allclose(tangent.y, dense @ U[:, 0], 1e-7, 1e-10)
    by_minres = sad.vjp(problem, solution, V[:, 0], method="minres", rtol=1e-12)
    np.testing.assert_allclose(by_minres.x, dense.T @ V[:, 0], 1e-7, 1e-10)


def test_the_memory_of_folds_is_some_vectors_of_y():
    """x, r, p, A p and the start, y, steps and gradients; no ridge for each fold."""
    rng = np.random.default_rng(0)
    n, folds = 30_000, 4
    features = sparse.random_array((60, n), density=1e-3, rng=rng, format="csr")
    t = (rng.random(60) > 0.5).astype(float)
    glm = Glm(features, t, penalty="scalar", kernels="reference")
    problem, upper = glm.cross_validation(folds)
    x, unit = np.array([-4.0]), 8 * folds * glm.n
    sad.Hypergradient(problem, upper)(x + 1.0)  # imports what it needs
    problem, upper = glm.cross_validation(folds)
    tracemalloc.start()
    try:
        F = sad.Hypergradient(problem, upper)
        F(x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 18 * unit
