"""Linear models for scikit-learn whose penalties are learned by ``fit``.

    x̂ = argmin_x Σ_i w_i ℓ(z_i(x), t_i) / Σ_i w_i,    z_i of the model that did not see row i

The extra ``sklearn`` brings what they need.
"""

try:
    import sklearn as _sklearn  # noqa: F401  (its absence is said in one sentence)
except ImportError as error:
    raise ImportError(
        "sparse_argdiff.estimators needs scikit-learn: pip install "
        "'sparse_argdiff[sklearn]'"
    ) from error

from .classifier import LinearClassifierCV
from .regressor import LinearRegressorCV

__all__ = ["LinearClassifierCV", "LinearRegressorCV"]
