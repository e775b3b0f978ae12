"""The house rules: who may import whom, names, sizes, and what ``import`` costs."""

from __future__ import annotations

import ast
import functools
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS

import sparse_argdiff as sad

ROOT = Path(sad.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8"), str(path)) for path in FILES}

# A floor for each folder and for each file beside ``__init__``.  Imports go to a lower
# floor, or stay in the folder.
FLOORS = {
    "": 14,  # sparse_argdiff/__init__.py, the public names
    "report": 13,
    "checks": 13,
    "estimators": 12,
    "bilevel": 11,
    "linear_model": 10,
    "hypergradient": 9,
    "solvers": 8,
    "implicit": 7,
    "preconditioners": 6,
    "problem": 5,
    "krylov": 4,
    "kernels": 3,
    "operators": 2,
    "arrays": 1,
    "status": 1,
}
STRANGERS = [("implicit", "solvers"), ("solvers", "implicit")]
DRAWERS = {"utils", "util", "misc", "common", "helpers", "helper", "base", "manager"}
HEAVY = {
    "matplotlib",
    "sklearn",
    "torch",
    "jax",
    "pyamg",
    "numba",
    "tqdm",
    "cupy",
    "pandas",
}
MOST_LINES = 60  # of a function, its docstring aside
# Functions that are longer; this list only shrinks.
LONG_FUNCTIONS: set[str] = set()
NAME = "sparse_argdiff"


def module_of(path):
    """Return the dotted name below the package: ``bilevel.record``, ``bilevel``, ``""``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


WALKED = {path: list(ast.walk(tree)) for path, tree in TREES.items()}


def nodes(path, kind):
    return [node for node in WALKED[path] if isinstance(node, kind)]


@functools.cache
def imported_modules(path):
    """Return (line, dotted name below the package) of each import of our own."""
    inside = module_of(path).split(".") if module_of(path) else []
    package = inside if path.name == "__init__.py" else inside[:-1]
    found = []
    for node in nodes(path, ast.Import):
        for alias in node.names:
            first, _, rest = alias.name.partition(".")
            if first == NAME:
                found.append((node.lineno, rest))
    for node in nodes(path, ast.ImportFrom):
        if node.level:
            up = package[: len(package) - (node.level - 1)]
            start = up + (node.module.split(".") if node.module else [])
        elif (node.module or "").split(".")[0] == NAME:
            start = node.module.split(".")[1:]
        else:
            continue
        for alias in node.names:
            deeper = ".".join([*start, alias.name])
            found.append(
                (node.lineno, deeper if deeper in MODULES else ".".join(start))
            )
    return found


def room(module):
    return module.split(".")[0]


def dotted(node):
    """Return ``a.b.c`` of an attribute, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


EDGES = [
    (module_of(path), line, target)
    for path in FILES
    for line, target in imported_modules(path)
]


def each_file(check):
    """Check all files in one test, which names those that fail."""

    @functools.wraps(check)
    def test():
        failed = []
        for path in FILES:
            try:
                check(path)
            except AssertionError as error:
                failed.append(f"{module_of(path) or NAME}: {error}")
        assert not failed, "\n".join(failed)

    del test.__wrapped__  # its argument is no fixture
    return test


def test_the_parser_of_this_file_sees_imports():
    """A guard: an empty list of imports would satisfy every rule below."""
    seen = {(source, target) for source, _, target in EDGES}
    assert ("implicit.checked_solve", "krylov") in seen  # from .. import krylov
    assert (
        "implicit.derivative",
        "implicit.checked_solve",
    ) in seen  # from .c import ...
    assert ("bilevel.minimize", "hypergradient.hypergradient") in seen  # from ..h.h
    assert ("arrays", "arrays.namespace") in seen
    assert ("", "solvers.solve") in seen


@each_file
def test_every_folder_has_a_floor(path):
    assert room(module_of(path)) in FLOORS


@each_file
def test_imports_go_down(path):
    source = room(module_of(path))
    wrong = [
        f"line {line}: {source} (floor {FLOORS[source]}) imports {target} "
        f"(floor {FLOORS[room(target)]})"
        for line, target in imported_modules(path)
        if room(target) != source and not FLOORS[room(target)] < FLOORS[source]
    ]
    assert not wrong


@pytest.mark.parametrize(("source", "target"), STRANGERS)
def test_differentiating_and_solving_do_not_meet(source, target):
    """Not even through a third room."""
    reached, fresh = set(), {source}
    while fresh:
        reached |= fresh
        fresh = {room(t) for s, _, t in EDGES if room(s) in fresh} - reached
    assert target not in reached


def test_no_import_circle():
    """Among modules, imports inside functions included."""
    targets = {name: {t for s, _, t in EDGES if s == name} for name in MODULES}
    done, trail = set(), []

    def visit(name):
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        trail.append(name)
        for target in sorted(targets[name]):
            visit(target)
        trail.pop()
        done.add(name)

    for name in MODULES:
        visit(name)


@each_file
def test_no_delayed_import_of_our_own(path):
    """An import inside a function may fetch what is optional, never hide a circle."""
    own = {line for line, _ in imported_modules(path)}
    for function in nodes(path, ast.FunctionDef | ast.AsyncFunctionDef):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert node.lineno not in own


def length(function):
    """Return the lines of a function from ``def`` to its end, its docstring aside."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


@each_file
def test_functions_are_short(path):
    functions = nodes(path, ast.FunctionDef | ast.AsyncFunctionDef)
    long = {f"{module_of(path)}.{f.name}" for f in functions if length(f) > MOST_LINES}
    listed = {f for f in LONG_FUNCTIONS if f.rpartition(".")[0] == module_of(path)}
    assert long == listed


@each_file
def test_names(path):
    for part in path.relative_to(ROOT).with_suffix("").parts:
        words = set(part.strip("_").lower().split("_"))
        assert not words & DRAWERS


@each_file
def test_module_docstring(path):
    docstring = ast.get_docstring(TREES[path])
    assert docstring
    assert len(docstring.splitlines()[0]) >= 20


@each_file
def test_no_print(path):
    for call in nodes(path, ast.Call):
        assert dotted(call.func) not in {"print", "pprint", "sys.stdout.write"}


@each_file
def test_no_global_state(path):
    """No global seed, no environment, no change of everybody's warnings or NumPy."""
    forbidden = {
        "numpy.random.seed",
        "np.random.seed",
        "random.seed",
        "os.environ",
        "os.getenv",
        "os.putenv",
        "np.seterr",
        "numpy.seterr",
        "np.set_printoptions",
        "warnings.simplefilter",
        "warnings.filterwarnings",
        "logging.basicConfig",
    }
    used = {dotted(node) for node in nodes(path, ast.Attribute)}
    assert not used & forbidden
    for node in nodes(path, ast.ImportFrom):
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        assert not names & forbidden
    assert not nodes(path, ast.Global)


@each_file
def test_cupy_enters_through_two_doors(path):
    """``arrays/`` and ``kernels/`` may import CuPy."""
    if room(module_of(path)) in {"arrays", "kernels"}:
        return
    for node in nodes(path, ast.Import):
        assert not [a.name for a in node.names if a.name.split(".")[0] == "cupy"]
    for node in nodes(path, ast.ImportFrom):
        assert (node.module or "").split(".")[0] != "cupy"
    for call in nodes(path, ast.Call):
        if dotted(call.func) in {"__import__", "importlib.import_module"}:
            values = [a.value for a in call.args if isinstance(a, ast.Constant)]
            assert "cupy" not in values


@each_file
def test_scikit_learn_enters_through_one_door(path):
    """``estimators/`` alone imports it."""
    names = [a.name for node in nodes(path, ast.Import) for a in node.names]
    names += [node.module or "" for node in nodes(path, ast.ImportFrom)]
    if room(module_of(path)) != "estimators":
        assert not [name for name in names if name.split(".")[0] == "sklearn"]


@each_file
def test_no_bare_except(path):
    for handler in nodes(path, ast.ExceptHandler):
        assert handler.type is not None
        assert dotted(handler.type) not in {"Exception", "BaseException"}


# the public names ---------------------------------------------------------------------


def public():
    for name in sad.__all__:
        yield name, getattr(sad, name)
    for package in (sad.linear_model, sad.preconditioners):
        for name in package.__all__:
            yield f"{package.__name__.partition('.')[2]}.{name}", getattr(package, name)


PUBLIC = dict(public())
each_public = pytest.mark.parametrize("name", PUBLIC)


def test_all_is_sorted_unique_and_there():
    for package in (sad, sad.linear_model, sad.preconditioners, sad.bilevel):
        names = list(package.__all__)
        assert names == sorted(set(names))
        for name in names:
            assert hasattr(package, name), f"{package.__name__}.{name}"


@each_public
def test_docstring(name):
    thing = PUBLIC[name]
    assert thing.__doc__
    assert thing.__doc__.strip()
    # A dataclass without a docstring is given its signature.
    assert not thing.__doc__.startswith(f"{name.rpartition('.')[2]}(")


@each_public
def test_public_methods_have_docstrings(name):
    thing = PUBLIC[name]
    if not inspect.isclass(thing):
        return
    for attribute, member in vars(thing).items():
        if attribute.startswith("_"):
            continue
        if inspect.isfunction(member) or isinstance(member, property | staticmethod):
            assert inspect.getdoc(getattr(thing, attribute, member)), attribute


@each_public
def test_public_functions_document_their_arguments(name):
    """Each argument is named in the docstring, or the docstring says whose they are."""
    thing = PUBLIC[name]
    if not inspect.isfunction(thing):
        return
    documented = thing.__doc__
    for argument in inspect.signature(thing).parameters:
        if argument in {"rng", "raise_on_failure"} or "arguments" in documented:
            continue
        assert argument in documented, argument


@each_public
def test_options_are_keyword_only(name):
    """At most four positional arguments, and no flag among them.

    A solver's start x0, which SciPy's are given by position, is not counted.
    """
    thing = PUBLIC[name]
    if not inspect.isfunction(thing):
        return
    parameters = inspect.signature(thing).parameters.values()
    positional = [
        p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "x0"
    ]
    # The data of a quadratic program in the order that all its solvers have.
    assert len(positional) <= (8 if name == "QuadraticProgram" else 4)
    assert not [p.name for p in positional if isinstance(p.default, bool)]


# what an import costs -----------------------------------------------------------------


def in_a_fresh_python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT.parent,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m[0]}: {m[1]}")
def test_mutants_change_lines_that_are_there(mutant):
    name, old, new, tests = mutant
    assert old in (ROOT / name).read_text("utf-8")
    assert old != new
    assert (Path(__file__).parent / tests).is_file()


def test_import_is_light_and_silent():
    code = f"import sys, {NAME}; print(*sorted(sys.modules))"
    loaded = {name.partition(".")[0] for name in in_a_fresh_python(code).split()}
    assert NAME in loaded
    assert not loaded & HEAVY
    assert in_a_fresh_python(f"import {NAME}") == ""


@pytest.mark.slow
def test_each_module_can_be_imported_first():
    """A circle shows when another door is used than the usual one."""
    failed = in_a_fresh_python(
        "import importlib, sys, types\n"
        f"for module in {[m for m in MODULES if m]}:\n"
        "    for name in list(sys.modules):\n"
        f"        if name.split('.')[0] == '{NAME}':\n"
        "            del sys.modules[name]\n"
        f"    package = types.ModuleType('{NAME}')\n"
        f"    package.__path__ = [{str(ROOT)!r}]\n"
        f"    sys.modules['{NAME}'] = package\n"
        "    try:\n"
        f"        importlib.import_module('{NAME}.' + module)\n"
        "    except ImportError as error:\n"
        "        print(module, error)\n"
    )
    assert failed == ""
