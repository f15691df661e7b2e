"""The pytest classes lose no check: what an author's test module can do wrong ends red."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
HEAD = '''
import pytest
from closedloop.ledger import MemoryLedger
from closedloop.testing import LedgerConformance, LedgerSubject

STORE = (
    "outlives_its_process", "two_handles_see_one_truth",
    "notices_an_edited_record", "notices_a_removed_record", "notices_reordered_records",
)
def doubled(n):
    """
    >>> doubled(2)
    4
    """
    return 2 * n

EXCUSED = {name: "in memory" for name in STORE}
'''


MARKING = """
import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        if "keeps_states" in item.name:
            item.add_marker(pytest.mark.xfail)
"""


def run(tmp_path, body: str, *options: str) -> tuple[int, str]:
    """Run an author's test module in a pytest of its own."""
    module = tmp_path / "test_mine.py"
    module.write_text(HEAD + textwrap.dedent(body))
    (tmp_path / "conftest_marking.py").write_text(MARKING)
    told = tmp_path / "told"
    pid = os.fork()  # everything is imported here already, which a new interpreter would do again
    if pid == 0:
        try:
            sys.stdout = sys.stderr = told.open("w")
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
            os.chdir(tmp_path)
            os.environ["COLUMNS"] = "200"
            sys.path.insert(0, str(tmp_path))
            code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(module), *options])
            sys.stdout.flush()
            os._exit(int(code))
        finally:  # the child must never return into the test runner
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told.read_text()


GOOD = """
class TestMine(LedgerConformance):
    @pytest.fixture
    def subject(self):
        return LedgerSubject(ledger=MemoryLedger(), excused=EXCUSED)
"""


def test_a_sound_ledger(tmp_path):
    """One test for each check and one that counts them: 10 pass, 5 are excused, 1 counts."""
    code, told = run(tmp_path, GOOD, "--doctest-modules")
    assert code == 0, told
    assert "12 passed, 5 skipped" in told  # and one doctest beside them


@pytest.mark.skipif(os.environ.get("CLOSEDLOOP_FULL") != "1", reason="three processes: set CLOSEDLOOP_FULL=1")
def test_spread_over_processes(tmp_path):
    """The classes may be spread by pytest-xdist, test by test."""
    pytest.importorskip("xdist")
    code, told = run(tmp_path, GOOD, "-n", "2")
    assert code == 0, told
    assert "11 passed, 5 skipped" in told


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        ("class TestMine(LedgerConformance):\n    pass\n", (), "override the fixture `subject`"),
        (GOOD.replace("excused=EXCUSED", ""), (), "reopen missing; offer it, or excuse the check with a reason"),
        (GOOD.replace("return", "pytest.skip('not today')\n        return"), (), "the fixture skipped (not today)"),
        (GOOD, ("--deselect", "test_mine.py::TestMine::test_check[keeps_states]"), "14 of 15 checks run here, these do not: keeps_states"),
        (GOOD, ("-p", "conftest_marking"), "14 of 15 checks run here, these do not: keeps_states"),
        (GOOD + "\n    def test_check(self):\n        pass\n", (), "overrides test_check"),
        (GOOD.replace("excused=EXCUSED", "excused={**EXCUSED, 'keeps_stats': '?'}"), (), "there is no such check to excuse"),
    ],
    ids=["no-subject", "no-excuse", "skipping-fixture", "deselected", "marked", "overridden", "misspelt"],
)
def test_what_loses_a_check_is_noticed(tmp_path, body, options, words):
    """Each way to lose a check ends with a failure that says what to do."""
    code, told = run(tmp_path, body, *options)
    assert code != 0, told
    assert words in told


def test_pytest_is_not_needed_for_a_certificate():
    """`closedloop.testing` certifies without pytest; only its classes import it."""
    code = "import sys; from closedloop.testing import certify, PLATFORM_CHECKS; assert 'pytest' not in sys.modules and PLATFORM_CHECKS"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
