"""The command ``sparse-argdiff`` and its readers of files."""

from __future__ import annotations

import bz2
import gzip
import io

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from test_estimators import classes, regression

from sparse_argdiff.estimators import LinearClassifierCV, LinearRegressorCV
from sparse_argdiff.estimators.command import main
from sparse_argdiff.estimators.files import DataError, read_table


def run(*arguments):
    """Return the exit code and what was written."""
    out = io.StringIO()
    return main([str(a) for a in arguments], out), out.getvalue()


@pytest.fixture
def table(tmp_path):
    X, y = regression(n=50, p=4)
    frame = pd.DataFrame(X, columns=["size", "age", "x__1", "x__2"])
    frame["town"] = np.where(X[:, 0] > 0, "Ulm", "Bonn")
    frame["rent"] = y
    path = tmp_path / "rents.csv"
    frame.to_csv(path, index=False)
    return path


def test_fit_predict_report(table, tmp_path):
    model = tmp_path / "model.npz"
    code, out = run(
        "fit", table, "--save", model, "--groups", "blocks", "--no-progress"
    )
    assert code == 0
    assert "best single penalty" in out
    code, out = run("predict", table, "--model", model, "--target", "rent")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "prediction"
    assert len(lines) == 51
    frame = pd.get_dummies(pd.read_csv(table), prefix_sep="__", dtype=float)
    X, y = frame.drop(columns=["rent"]), frame["rent"]
    peer = LinearRegressorCV(groups="blocks").fit(X, y)
    assert np.allclose([float(line) for line in lines[1:]], peer.predict(X))
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    pytest.importorskip("matplotlib")
    assert run("report", model, "--out", page)[0] == 0
    text = page.read_text("utf-8")
    assert "Most harmful rows" in text
    assert "town__Ulm" in text
    assert run("report", model, "--out", picture)[0] == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    code, out = run("fit", table, "--save", tmp_path / "again.npz", "--resume", model,
                    "--groups", "blocks", "--no-progress")  # fmt: skip
    assert code == 0


@pytest.mark.parametrize("opened", [open, gzip.open, bz2.open])
def test_svmlight(tmp_path, opened):
    X, y = classes(n=60)
    ending = {open: "", gzip.open: ".gz", bz2.open: ".bz2"}[opened]
    path = tmp_path / f"data.svm{ending}"
    with opened(path, "wb") as file:
        dump_svmlight_file(X, y, file, zero_based=False)
    model, out = tmp_path / "m.npz", tmp_path / "p.csv"
    assert run("fit", path, "--save", model, "--no-progress", "--cv", 3)[0] == 0
    assert run("predict", path, "--model", model, "--out", out)[0] == 0
    found = pd.read_csv(out)
    peer = LinearClassifierCV(cv=3).fit(sparse.csr_array(X), y.astype(float))
    assert np.array_equal(found["prediction"], peer.predict(X))
    assert np.allclose(found.iloc[:, 1:], peer.predict_proba(X), atol=1e-6)


def test_parquet_and_npz(tmp_path):
    X, y = regression(n=30, p=3)
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y)
    frame.to_parquet(tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet", target="y")
    assert read.names == ["a", "b", "c"]
    np.savez(tmp_path / "d.npz", X=X, y=y)
    assert np.array_equal(read_table(tmp_path / "d.npz").targets, y)
    sparse.save_npz(tmp_path / "s.npz", sparse.csr_array(X))
    np.save(tmp_path / "y.npy", y)
    read = read_table(tmp_path / "s.npz", target=str(tmp_path / "y.npy"))
    assert np.array_equal(read.targets, y)
    with pytest.raises(DataError, match="needs its targets"):
        read_table(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.svm",
            "1 1:2 2:1\n1 1:2 2:x\n",
            "line 2: expected index:value, found '2:x'",
        ),
        ("a.svm", "1 1:2\nyes 1:2\n", "line 2: the target must be a number"),
        ("a.svm", "1 3:2 2:1\n", "line 1: indices must increase"),
        ("a.csv", "a,y\n1,2\n,3\n", "line 3: no number in column 'a'"),
        ("a.csv", "a,y\n1,2\n3,\n", "line 3: no value of 'y'"),
        ("a.csv", "a,y\n1,2\n1,2,3,4\n", "line 3"),
        ("a.csv", "a,y\n", "has no rows"),
        ("a.npz", "no archive", "cannot be read"),
    ],
)
def test_the_line_of_a_fault_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_wrong_calls(table, tmp_path, capsys):
    for arguments, message in (
        (("fit", tmp_path / "none.csv", "--save", "m.npz"), "there is no file"),
        (("fit", table, "--save", "m.txt"), "must end in .npz"),
        (("fit", table, "--target", "price", "--save", "m.npz"), "no column 'price'"),
        (("fit", table, "--cv", "many", "--save", "m.npz"), "--cv must be"),
        (("predict", table, "--model", table), "cannot be read as a saved model"),
    ):
        assert run(*arguments)[0] == 2
        assert message in capsys.readouterr().err
