"""Newton's step of a linear model in the digits of the caller's decimal context."""

from decimal import Decimal


def newton_step(F, labels, power, y, free=1):
    """The length of a Newton step over that of y, in the metric of the Hessian.

    Of the mean logistic loss with ridge e^power on all but the last ``free`` columns.
    """
    B = [[Decimal(float(a * b)) for a in row] for row, b in zip(F, labels, strict=True)]
    ridge = Decimal(power).exp()
    y = [Decimal(float(v)) for v in y]
    n, N = len(y), len(B)
    odds = [(-sum(a * b for a, b in zip(row, y, strict=True))).exp() for row in B]
    q = [e / (1 + e) for e in odds]
    ridges = [ridge] * (n - free) + [Decimal(0)] * free
    g = [ridges[j] * y[j] - sum(q[i] * B[i][j] for i in range(N)) / N for j in range(n)]
    c = [a * (1 - a) / N for a in q]
    H = [
        [sum(c[i] * B[i][j] * B[i][k] for i in range(N)) for k in range(n)]
        for j in range(n)
    ]
    for j in range(n):
        H[j][j] += ridges[j]
    d = gaussian_elimination(H, g)
    square = sum(a * b for a, b in zip(d, g, strict=True))
    size = sum(y[j] * sum(H[j][k] * y[k] for k in range(n)) for j in range(n))
    return float((square / size).sqrt())


def gaussian_elimination(A, b):
    """Solve A x = b, A positive definite."""
    A, b, n = [row[:] for row in A], b[:], len(b)
    for i in range(n):
        for j in range(i + 1, n):
            factor = A[j][i] / A[i][i]
            if factor:
                A[j] = [u - factor * v for u, v in zip(A[j], A[i], strict=True)]
                b[j] -= factor * b[i]
    x = [Decimal(0)] * n
    for i in reversed(range(n)):
        x[i] = (b[i] - sum(A[i][k] * x[k] for k in range(i + 1, n))) / A[i][i]
    return x
