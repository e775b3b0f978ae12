"""The command ``sparse-argdiff``: fit a model to a file, predict with it, report on it.

sparse-argdiff fit DATA --save model.npz
sparse-argdiff predict DATA --model model.npz --out predictions.csv
sparse-argdiff report model.npz --out report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..status import ConvergenceError
from .classifier import LinearClassifierCV
from .files import DataError, Table, read_array, read_table, write_columns
from .penalty_table import NAMES
from .regressor import LOSSES, LinearRegressorCV
from .report import write_report
from .saved_model import read_model, save_model


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main_parser = argparse.ArgumentParser(
        prog="sparse-argdiff",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="learn penalties and coefficients")
    add = fit.add_argument
    add("data", type=Path, help="svmlight (.gz, .bz2), .csv, .tsv, .parquet or .npz")
    add("--target", help="column of a frame (default: the last); .npy for a .npz")
    add("--n-features", type=int, help="number of features of an svmlight file")
    losses = ("logistic", *LOSSES)
    add(
        "--loss",
        choices=losses,
        help="default: by the target, words or few whole numbers",
    )
    add("--power", type=float, default=1.5, help="of the Tweedie loss, from 1 to 2")
    add("--quantile", type=float, default=0.5, help="of the quantile loss, in (0, 1)")
    add("--penalties", choices=[name for name in NAMES if name != "groups"])
    add(
        "--groups",
        help="'blocks' (by names, before '__'), or .npy with a label a column",
    )
    add("--descriptors", type=Path, help=".npy, a row for each column of the data")
    add("--prior", type=float, help="deviation of single columns' log-penalties")
    add("--cv", default="5", help="number of folds, or 'loo'")
    add("--keep", choices=("best", "learned"), default="best")
    add("--max-iter", type=int, default=100)
    add("--seed", type=int, default=0, help="of the folds")
    add("--threads", type=int, default=1)
    add("--no-progress", action="store_true")
    add("--save", type=Path, required=True, help="file of the model, .npz")
    add("--resume", type=Path, help="start from the penalties of a saved model")
    predict = commands.add_parser("predict", help="predict with a saved model")
    predict.add_argument("data", type=Path)
    predict.add_argument("--model", type=Path, required=True)
    predict.add_argument("--target", help="column to leave out, and to score by")
    predict.add_argument("--out", type=Path, help="CSV; default: standard output")
    report = commands.add_parser("report", help="draw what a saved model has learned")
    report.add_argument("model", type=Path)
    report.add_argument("--out", type=Path, default=Path("report.html"))
    return main_parser


def main(arguments: Sequence[str] | None = None, out: TextIO | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for numerical trouble, 2 for bad input."""
    out = sys.stdout if out is None else out
    args = parser().parse_args(arguments)
    run = {"fit": run_fit, "predict": run_predict, "report": run_report}[args.command]
    try:
        run(args, out)
    except (DataError, OSError, ValueError, TypeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except ConvergenceError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def run_fit(args: argparse.Namespace, out: TextIO) -> None:
    """Fit and save."""
    if args.save.suffix != ".npz":
        raise DataError(f"--save must end in .npz, found {args.save}")
    table = read_table(args.data, target=args.target, n_features=args.n_features)
    assert table.targets is not None
    model = _model(args, table)
    if args.resume is not None:
        _resume(model, args.resume, table)
    model.fit(table.features, table.targets)
    out.write(model.summary() + "\n")
    influence = model.influence(table.features, table.targets)
    args.save.parent.mkdir(parents=True, exist_ok=True)
    save_model(args.save, model, {"data": args.data.name}, influence)
    out.write(f"saved {args.save}\n")


def _model(args: argparse.Namespace, table: Table) -> Any:
    loss = args.loss or _usual_loss(table.targets)
    groups: Any = args.groups
    if groups is not None and groups != "blocks":
        groups = read_array(Path(groups))
    options = {
        "penalties": args.penalties,
        "groups": groups,
        "descriptors": None
        if args.descriptors is None
        else read_array(args.descriptors),
        "prior": args.prior,
        "cv": args.cv if args.cv == "loo" else _whole(args.cv),
        "keep": args.keep,
        "max_iter": args.max_iter,
        "random_state": args.seed,
        "n_jobs": args.threads,
        "progress": not args.no_progress,
    }
    if loss == "logistic":
        return LinearClassifierCV(**options)
    return LinearRegressorCV(loss, power=args.power, quantile=args.quantile, **options)


def _whole(text: str) -> int:
    if not text.isdigit():
        raise DataError(f"--cv must be a number of folds or 'loo', found {text!r}")
    return int(text)


def _usual_loss(targets: Any) -> str:
    """Return "logistic" for words, booleans and up to twenty whole numbers."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "fiu":
        return "logistic"
    values = np.unique(targets)
    few = values.size <= min(20, max(2, targets.size // 10))
    return "logistic" if few and (values == np.round(values)).all() else "squared"


def _resume(model: Any, path: Path, table: Table) -> None:
    """Let the search start from the penalties of a saved model."""
    saved = read_model(path)
    if saved.coef_.shape[-1] != table.features.shape[1]:
        raise DataError(
            f"{path} is a model of {saved.coef_.shape[-1]} columns, the data have "
            f"{table.features.shape[1]}"
        )
    model.set_params(warm_start=True)
    model._u = saved.arrays["_u"]


def run_predict(args: argparse.Namespace, out: TextIO) -> None:
    """Predict, and score where the target is there."""
    saved = read_model(args.model)
    count = None if saved.meta["names"] else saved.coef_.shape[-1]
    table = read_table(
        args.data, target=args.target, n_features=count, needs_target=False
    )
    found, probability = saved.predict(saved.features(table))
    columns, header = [found], "prediction"
    if probability is not None:
        header += "".join(f",p_{label}" for label in saved.classes_)
        columns += list(probability.T)
    if args.out is None:
        out.write(header + "\n")
        out.writelines(
            ",".join(map(str, row)) + "\n" for row in zip(*columns, strict=True)
        )
    else:
        write_columns(args.out, header, columns)
        out.write(f"saved {args.out}\n")
    if args.target is not None and table.targets is not None:
        _score(found, probability, table.targets)


def _score(found: np.ndarray, probability: Any, targets: np.ndarray) -> None:
    """Say how well the predictions fit, on standard error: the output is a table."""
    if probability is not None:
        same = np.mean(found.astype(str) == np.asarray(targets).astype(str))
        sys.stderr.write(f"accuracy {same:.4f}\n")
        return
    targets = np.asarray(targets, dtype=float)
    rest = 1.0 - np.mean((targets - found) ** 2) / np.var(targets)
    sys.stderr.write(f"R2 {rest:.4f}\n")


def run_report(args: argparse.Namespace, out: TextIO) -> None:
    """Write the report of a saved model."""
    write_report(args.out, read_model(args.model))
    out.write(f"saved {args.out}\n")
