"""The walls of the house: the import budget, the list of public names, and the direction of imports."""

import subprocess
import sys
from pathlib import Path

import pytest

import closedloop

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "pandas",
    "pandera",
    "polars",
    "pyarrow",
    "duckdb",
    "pyspark",
    "scipy.stats",
    "matplotlib",
    "google.ads",
    "facebook_business",
    "psycopg",
)


def test_importing_the_library_is_light() -> None:
    """`import closedloop` loads no data frame library, no validator, no plotting and no SDK."""
    code = f"import closedloop, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_are_listed_and_exist() -> None:
    """`__all__` is sorted, without doubles, complete and real."""
    names = list(closedloop.__all__)
    assert names == sorted(set(names))
    assert all(hasattr(closedloop, name) for name in names)
    exposed = {n for n, v in vars(closedloop).items() if not n.startswith("_") and not isinstance(v, type(sys))}
    assert exposed == set(names) - {"__version__"}


def test_public_names_are_documented() -> None:
    """Every public class and function has a docstring of its own."""
    for name in closedloop.__all__:
        thing = getattr(closedloop, name)
        if callable(thing) and getattr(thing, "__module__", "").startswith("closedloop"):
            assert (thing.__doc__ or "").strip(), name


def test_imports_go_down_only() -> None:
    """The import contract of pyproject.toml is kept (import-linter)."""
    pytest.importorskip("importlinter")
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_nothing_else_lies_at_the_top() -> None:
    """The repository's top level holds only what a newcomer expects."""
    listed = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    expected = {
        ".ci", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "LICENSE", "README.md", "benchmarks", "docs", "pyproject.toml",
        "src", "tests",
    }  # fmt: skip
    assert set(listed.stdout.split()) <= expected
