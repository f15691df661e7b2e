"""For `.ci/mutation`: note which test reaches which line of the unchanged code, and run chosen tests in their order."""

import json
import os
import resource
from collections import Counter
from pathlib import Path

TIMES, CHOSEN = os.environ.get("MUTATION_TIMES"), os.environ.get("MUTATION_CHOSEN")
took: Counter = Counter()
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))  # a change may ask for all memory there is


def pytest_collection_modifyitems(items):  # noqa: D103
    if CHOSEN:
        rank = {name: i for i, name in enumerate(json.loads(Path(CHOSEN).read_text()))}
        items[:] = sorted((item for item in items if item.nodeid in rank), key=lambda item: rank[item.nodeid])


def pytest_runtest_logstart(nodeid, location):  # noqa: D103
    if TIMES:
        import coverage

        coverage.Coverage.current().switch_context(nodeid)


def pytest_runtest_logreport(report):  # noqa: D103
    took[report.nodeid] += report.duration


def pytest_sessionfinish():  # noqa: D103
    if TIMES:
        Path(TIMES).write_text(json.dumps(took))
