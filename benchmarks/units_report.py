"""The same problem in other units: how often the answers are right, refused, or wrong.

    OPENBLAS_NUM_THREADS=1 python benchmarks/units_report.py --seed 1 [--variations 540]
    python benchmarks/units_report.py --seed 1 --only bounds --verbose
    python benchmarks/units_report.py --seed 1 --alone bounds/y8/0

Each cell counts right / refused / wrong / foreign of a class of problems in a change of
units; "limited" ones, whose y is right to the tolerance times a shift of the origin, are
added to the right ones and counted apart below.  The cases and what counts as right are
those of ``tests/changed_units.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import changed_units as units


def numbered(variations: int, only: str | None):
    """Return (class, change, number) of so many variations, class by class in turn."""
    pairs = [pair for pair in units.pairs() if only is None or only in pair[0]]
    if not pairs:
        sys.exit(f"no class has {only!r} in its name")
    rounds, rest = divmod(variations, len(pairs))
    cases = [(*pair, k) for k in range(rounds) for pair in pairs]
    # The last round is not a full one: every so many of them.
    spread = [pairs[i * len(pairs) // rest] for i in range(rest)]
    return cases + [(*pair, rounds) for pair in spread]


def cell(counts: Counter) -> str:
    """Return the counts as right/refused/wrong/foreign."""
    return "/".join(str(counts[word]) for word in WORDS) if counts else "."


def table(cells: dict[tuple[str, str], Counter]) -> None:
    """Print the counts, a line a class and a column a change of units."""
    changes = list(dict.fromkeys(change for _, change in cells))
    letters = dict(zip(changes, "abcdefghijklmnopqrstuvwxyz", strict=False))
    print("/".join(WORDS), *(f"{letters[c]} = {c}" for c in changes), sep="  ")
    for group in (False, True):
        names = {name: 0 for name, _ in cells if name.startswith("glm-") == group}
        columns = [c for c in changes if any((name, c) in cells for name in names)]
        if names:
            print(" " * 20, *(f"{letters[c]:>8}" for c in columns), "     all")
        for name in names:
            row = [cells.get((name, c), Counter()) for c in columns]
            total = sum(row, Counter())
            print(f"{name:20}", *(f"{cell(n):>8}" for n in row), "", cell(total))
    print("all, by change of units:")
    for change in changes:
        total = sum((n for key, n in cells.items() if key[1] == change), Counter())
        print(f"  {letters[change]} {change:18}{cell(total)}")
    print(f"{'all':22}{cell(sum(cells.values(), Counter()))}")


WORDS = ("right", "refused", "wrong", "foreign")


def line(case: str, verdict, posed) -> str:
    """Describe a case that did not go right."""
    errors = f"y {verdict.y:.0e} value {verdict.value:.0e} Ju {verdict.forward:.0e} "
    return (
        f"{verdict.word:8}{case:34} {errors}J'v {verdict.adjoint:.0e} "
        f"{verdict.status}; {posed.units}; {verdict.note}"
    )


def main() -> None:
    """Run the variations and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variations", type=int, default=540)
    parser.add_argument("--only", help="classes with this in their name")
    parser.add_argument("--alone", help="class/change/number of one case")
    parser.add_argument("--verbose", action="store_true", help="refusals, too")
    arguments = parser.parse_args()
    cases = numbered(arguments.variations, arguments.only)
    if arguments.alone:
        name, change, number = arguments.alone.rsplit("/", 2)
        cases = [(name, change, int(number))]
    cells: dict[tuple[str, str], Counter] = defaultdict(Counter)
    lines, limited, n_hvp, known = [], 0, 0, Counter()
    begin = time.perf_counter()
    for name, change, number in cases:
        posed, rng = units.pose(name, change, arguments.seed, number)
        verdict = units.judge(posed, rng)
        limited += verdict.word == "limited"
        word = "right" if verdict.word == "limited" else verdict.word
        cells[name, change][word] += 1
        n_hvp += verdict.n_hvp
        if posed.known_diagonal:
            known[word] += 1
        shown = {"wrong", "foreign"} | ({"refused"} if arguments.verbose else set())
        if word in shown or arguments.alone:
            lines.append(line(f"{name}/{change}/{number}", verdict, posed))
    table(cells)
    print(*sorted(lines), sep="\n")
    total = known.total()
    print(
        f"{len(cases)} variations in {time.perf_counter() - begin:.0f} s, {n_hvp} Hessian "
        f"products, {limited} limited by a shift; with a known diagonal of the Hessian "
        f"{known['refused']} of {total} refused ({known['refused'] / max(total, 1):.1%})"
    )


if __name__ == "__main__":
    main()
