# %% [markdown]
# # From a frame to a fitted pipeline
#
# Rents of flats: numbers with missing values, and words.  Each block of columns that a
# `ColumnTransformer` makes has a penalty of its own, learned by the folds: the districts'
# one-hot columns, of which there are many with few rows each, need another one than size
# and age.  Run it as it is, or open it as a notebook (`# %%` are the cells).

# %%
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

try:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GridSearchCV, train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

    from sparse_argdiff.estimators import LinearRegressorCV
except ImportError as error:
    sys.exit(f"error: {error}; pip install 'sparse_argdiff[examples]'")


# %% [markdown]
# ## The data
# A generated frame: 2300 flats, 300 of them to learn from, a fifth of the ages unknown, sixty
# streets with few flats each, and four numbers whose products hardly matter.


# %%
def flats(n: int = 2300, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Return what is known of n flats, and their rents in euros a month."""
    rng = np.random.default_rng(seed)
    street = rng.integers(0, 60, n)
    frame = pd.DataFrame(
        {
            "size": rng.gamma(9.0, 8.0, n),
            "age": rng.uniform(0.0, 100.0, n),
            "floor": rng.integers(0, 8, n).astype(float),
            "distance": rng.exponential(4.0, n),
            "street": [f"street {k:02d}" for k in street],
            "heating": rng.choice(["gas", "district", "oil"], n, p=[0.6, 0.3, 0.1]),
        }
    )
    effect = 80.0 * rng.standard_normal(60)[street]
    rent = 150 + 9.5 * frame["size"] - 1.2 * frame["age"] - 14.0 * frame["distance"]
    rent += 0.4 * frame["size"] * (frame["floor"] > 4) + effect
    rent -= 30.0 * (frame["heating"] == "oil")
    frame.loc[rng.random(n) < 0.2, "age"] = np.nan
    return frame, rent + 60.0 * rng.standard_normal(n)


X, y = flats()
X_learn, X_judge, y_learn, y_judge = train_test_split(
    X, y, train_size=300, random_state=0
)
print(X_learn.head(3))

# %% [markdown]
# ## The pipeline
# `set_output(transform="pandas")` keeps the names of the columns, such as
# `word__street_street 07`; `groups="blocks"` makes a group of each part before `__`.


# %%
def columns() -> ColumnTransformer:
    """Return the steps that make numbers of the frame."""
    numbers = ["size", "age", "floor", "distance"]
    linear = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    products = make_pipeline(
        SimpleImputer(),
        PolynomialFeatures(3, interaction_only=False, include_bias=False),
        StandardScaler(),
    )
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("number", linear, numbers),
            ("product", products, numbers),
            ("street", words, ["street"]),
            ("heating", words, ["heating"]),
        ]
    ).set_output(transform="pandas")


learned = make_pipeline(columns(), LinearRegressorCV(groups="blocks"))
learned.fit(X_learn, y_learn)
print(learned[-1].summary())

# %% [markdown]
# ## What it gains on rows that took no part

# %%
single = make_pipeline(columns(), RidgeCV(np.logspace(-3, 4, 20), cv=5))
single.fit(X_learn, y_learn)
for name, model in (("single penalty", single), ("a penalty a block", learned)):
    print(f"{name:20s} test R2 {model.score(X_judge, y_judge):.4f}")
rest = [(y_judge - model.predict(X_judge)) ** 2 for model in (single, learned)]
change = rest[1] - rest[0]
error = change.std() / np.sqrt(len(change))
print(f"squared error, learned - single: {change.mean():+.0f} +- {error:.0f} (paired)")

# %% [markdown]
# ## It is a scikit-learn estimator
# Anything of the pipeline may be searched; the penalties are learned inside each fit.

# %%
search = GridSearchCV(
    learned,
    {"columntransformer__product__polynomialfeatures__degree": [1, 2]},
    cv=3,
).fit(X_learn, y_learn)
print("degree of the products:", *search.best_params_.values())

# %% [markdown]
# ## Pictures

# %%
folder = Path("output")
folder.mkdir(exist_ok=True)
learned[-1].plot().savefig(folder / "frame_to_pipeline.png", dpi=150)
print(f"picture {folder / 'frame_to_pipeline.png'}")
