"""The documents are true: every Python snippet runs, every name in them exists, and the site builds strictly and offline."""

import ast
import builtins
import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import closedloop

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted((DOCS / "pages").rglob("*.md"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)?[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S)
NEEDS = {
    "polars": "polars",
    "parquet": "pyarrow",
    "pyarrow": "pyarrow",
    "duckdb": "duckdb",
    "matplotlib": "matplotlib",
    "fastapi": "fastapi",
    "apscheduler": "apscheduler",
    "google.ads": "google.ads",
    "opentelemetry": "opentelemetry.sdk",
    "pyspark": "pyspark",
}
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """The fenced blocks of a page in some languages, each with its line number."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        if match["language"] in languages:
            code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.M)
            found.append((text[: match.start()].count("\n") + 2, code))
    return found


def name(page: Path) -> str:
    return str(page.relative_to(DOCS / "pages").with_suffix(""))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_every_snippet_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets of a page run one after another in an empty folder, as a reader would; shown output is what comes out."""
    code = "".join(c for _, c in blocks(page, "python"))
    for word, module in NEEDS.items():
        if re.search(rf"\b{re.escape(word)}\b", code):
            pytest.importorskip(module)
    if "pyspark" in code and os.environ.get("CLOSEDLOOP_FULL") != "1":
        pytest.skip("a Java machine takes a minute; set CLOSEDLOOP_FULL=1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.syspath_prepend(str(DOCS.parent / "tests" / "platforms" / "servers"))
    names: dict[str, object] = {"__name__": "page"}
    for line, snippet in blocks(page, "python"):
        where = f"{page.name}, line {line}"
        if snippet.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(snippet, names, where, str(page), line)
            heard: list[str] = []
            result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=heard.append, clear_globs=False)
            names = test.globs
            assert result.failed == 0, "".join(heard)
        else:
            exec(compile("\n" * (line - 1) + snippet, str(page), "exec"), names)


def test_a_certified_toy_platform_takes_under_sixty_lines() -> None:
    """The adapter guide keeps its word: lines of the adapter and its certificate, without empty ones, prints and assertions."""
    adapter, certificate = (code for _, code in blocks(DOCS / "pages" / "adapters.md", "python")[:2])
    lines = [line for line in (adapter + certificate).splitlines() if line.strip() and not line.startswith(("print", "assert"))]
    assert "certify(" in certificate
    assert len(lines) < 60


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "sh")], ids=name)
def test_every_command_of_closedloop_runs(page: Path, tmp_path: Path) -> None:
    """Commands of the library in a shell block run in the order of the page; the files they need are made by its Python blocks."""
    lines = [c for _, block in blocks(page, "sh") for c in block.replace("\\\n", " ").splitlines()]
    commands = [c for c in lines if c.startswith("python -m closedloop")]
    if not commands:
        pytest.skip("no command of the library on this page")
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    for _, snippet in blocks(page, "python"):
        if "# file:" in snippet.splitlines()[0]:
            (tmp_path / snippet.splitlines()[0].split("# file:")[1].strip()).write_text(snippet, encoding="utf-8")
    for file, (_, text) in zip(("events.csv", "export.csv"), blocks(page, "csv"), strict=False):
        (tmp_path / file).write_text(text, encoding="utf-8")
    for command in commands:
        words = shlex.split(command, comments=True)
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def modules() -> dict[str, object]:
    """Every public module of the library, by name."""
    found = {"closedloop": closedloop}
    for module in pkgutil.walk_packages(closedloop.__path__, "closedloop."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            try:
                found[module.name] = importlib.import_module(module.name)
            except ImportError:  # an adapter whose extra is not installed
                continue
    return found


def resolve(dotted: str) -> bool:
    """Whether ``closedloop.a.b.C.d`` exists."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(value, part) and part not in getattr(value, "__annotations__", {}):
                return False
            value = getattr(value, part, None)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_name_of_the_library_exists(page: Path) -> None:
    """``closedloop.X`` and ``cl.X`` on a page, and every ``::: closedloop.X`` of the reference, are there in the code."""
    text = page.read_text(encoding="utf-8")
    dotted = set(re.findall(r"\bclosedloop(?:\.[A-Za-z_]\w*)+", text))
    dotted |= {f"closedloop.{found}" for found in re.findall(r"\bcl\.([A-Za-z_]\w*)", text)}
    files = {"closedloop.db", "closedloop.egg"}
    assert sorted(d for d in dotted - files if not resolve(d)) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_class_named_in_words_exists(page: Path) -> None:
    """A word in code type that looks like a class is one of the library's, of Python's, or of the page's own snippets."""
    text = page.read_text(encoding="utf-8")
    known = set(dir(builtins)) | OTHERS
    for module in modules().values():
        known |= set(vars(module))
    for _, code in blocks(page, "python"):
        if not code.lstrip().startswith(">>>"):
            known |= {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ClassDef)}
    words = re.findall(r"`([A-Z][A-Za-z]*[a-z][A-Za-z]*)(?:\([^`]*\))?`", FENCE.sub("", text))
    assert sorted(set(words) - known) == []


OTHERS = {"DataFrame", "Axes", "LazyFrame", "RecordBatchReader", "Table"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_stay_inside(page: Path) -> None:
    """Links between pages lead to files that are there."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        assert (page.parent / target).exists(), target


def test_the_site_builds_strictly_and_needs_no_network(tmp_path: Path) -> None:
    """No warning while building; no page asks another host for a script, a style, a font or a picture."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(DOCS / "mkdocs.yml"), "-d", str(site)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"(https?:)?//[^\"]*\"", html)
        sheets = [tag for tag in re.findall(r"<link[^>]*>", html) if re.search(r"rel=\"(stylesheet|preconnect|icon)", tag) and "//" in tag]
        assert not loads, page
        assert not sheets, page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_of_the_repository_named_exists(page: Path) -> None:
    """Benchmarks, tests and sources that a page points to are there."""
    for path in re.findall(r"\b((?:benchmarks|tests|src)/[\w./-]+)", page.read_text(encoding="utf-8")):
        assert (DOCS.parent / path.rstrip(".")).exists(), path


def test_every_page_is_in_the_navigation() -> None:
    """No page is lost."""
    navigation = (DOCS / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name(p) for p in PAGES if f"{name(p)}.md" not in navigation] == []


def test_the_figures_of_the_comparison_are_those_on_record() -> None:
    """The comparison page shows the newest figure of everything measured, as `benchmarks/history.py` prints it, and nothing else."""
    spec = importlib.util.spec_from_file_location("history", DOCS.parent / "benchmarks" / "history.py")
    assert spec is not None
    assert spec.loader is not None
    history = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(history)
    page = (DOCS / "pages" / "explanation" / "comparison.md").read_text(encoding="utf-8")
    assert history.table() in page
