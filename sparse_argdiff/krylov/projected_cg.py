"""stub"""

import numpy as np

from ..status import Status
from .null_space import null_space
from .result import KrylovResult


def projected_cg(
    H,
    C,
    b,
    c=None,
    x0=None,
    *,
    rtol=1e-8,
    atol=0.0,
    maxiter=None,
    M=None,
    callback=None,
):
    ns = null_space(C)
    C = ns.C
    p, n = C.shape
    Hd = H @ np.eye(n)
    K = np.block([[Hd, C.T], [C, np.zeros((p, p))]])
    rhs = np.concatenate([b, np.zeros((p, *b.shape[1:])) if c is None else c])
    z = np.linalg.lstsq(K, rhs, rcond=None)[0]
    r = rhs - K @ z
    ok = np.linalg.norm(r) <= 1e-8 * np.linalg.norm(rhs)
    st = Status.CONVERGED if ok else Status.SINGULAR
    return KrylovResult(
        z[:n],
        st,
        np.full(b.shape[1:], ok) if b.ndim > 1 else bool(ok),
        0,
        n,
        np.linalg.norm(r, axis=0),
        r[:n],
        multipliers=z[n:],
    )
