"""The public names as a user's type checker sees them: mypy --strict and pyright accept good code and find every mistake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

full = pytest.mark.skipif(os.environ.get("CLOSEDLOOP_FULL") != "1", reason="CLOSEDLOOP_FULL=1 runs two type checkers")
HERE = Path(__file__).parent
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", os.devnull],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
}


def errors(checker: str, name: str, folder: Path) -> tuple[set[int], str]:
    """Check a copy of a file outside the repository, whose settings must not help; return the lines with errors, and the output."""
    pytest.importorskip(checker)
    copy = folder / name
    copy.write_bytes((HERE / name).read_bytes())
    done = subprocess.run([*CHECKERS[checker], copy.name], cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1), said
    lines = {int(n) for n in re.findall(rf"{re.escape(name)}:(\d+):(?:\d+:?)? (?:- )?error", said)}
    assert (done.returncode == 1) == bool(lines), said
    return lines, said


@full
@pytest.mark.parametrize("checker", CHECKERS)
def test_what_a_user_writes_is_accepted(checker: str, tmp_path: Path) -> None:
    """No error, and every asserted type is the inferred one."""
    lines, said = errors(checker, "user.py", tmp_path)
    assert not lines, said


@full
@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_found(checker: str, tmp_path: Path) -> None:
    """Each marked line is an error, and no other line is."""
    text = (HERE / "mistakes.py").read_text(encoding="utf-8").splitlines()
    lines, said = errors(checker, "mistakes.py", tmp_path)
    assert lines == {n for n, line in enumerate(text, 1) if line.endswith("# error")}, said


def test_the_package_says_that_it_is_typed() -> None:
    """py.typed lies beside the code that is installed."""
    import closedloop

    assert (Path(closedloop.__file__).parent / "py.typed").is_file()
