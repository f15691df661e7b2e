"""The report opened and clicked through in a real browser: nothing is requested, nothing runs, everything can be read.

The browser is driven over its own debugging pipe, so that no driver has to be installed; without Chromium the tests are skipped.
"""

import base64
import fcntl
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from closedloop.loop.report import render

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
HEADLESS = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
QUIET = "--disable-quic --disable-background-networking --disable-component-update --disable-sync"
FLAGS = [*HEADLESS.split(), *QUIET.split()]


def _factory() -> ModuleType:
    """The example cycles of the neighbouring test file, loaded from its path."""
    spec = importlib.util.spec_from_file_location("report_examples", Path(__file__).with_name("test_report.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLES = _factory()


class Browser:
    """A headless Chromium spoken to over its debugging pipe (messages are JSON, ended by a zero byte)."""

    def __init__(self, profile: Path) -> None:
        def high(descriptor: int) -> int:
            moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 20)
            os.close(descriptor)
            return moved

        theirs_in, self._write = (high(d) for d in os.pipe())
        self._read, theirs_out = (high(d) for d in os.pipe())

        def wire() -> None:
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        self._process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=wire,
            pass_fds=(3, 4),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._last = b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=False)["targetId"]
        self._session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=False)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _message(self, timeout: float) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser does not answer")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(line))

    def call(self, method: str, parameters: dict[str, Any] | None = None, *, session: bool = True) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters or {}}
        if session and hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message(60)
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, path: Path, *, width: int = 1180, dark: bool = False, media: str = "") -> None:
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
        self.call("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        self.call("Page.navigate", {"url": path.as_uri()})
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            self.events.append(self._message(60))

    def ask(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1})

    def happened(self, *methods: str) -> list[dict[str, Any]]:
        return [e["params"] for e in self.events if e["method"] in methods]

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=20)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = EXAMPLES.HOSTILE
    sources = {
        "plain": render(EXAMPLES.cycle(12), history=EXAMPLES.history()),
        "hostile": render(
            EXAMPLES.cycle(40, names=hostile), title=hostile[0], history=[{**r, "note": hostile[3]} for r in EXAMPLES.history(20)]
        ),
        "large": render(EXAMPLES.cycle(500), history=EXAMPLES.history(700)),
    }
    paths = {}
    for name, source in sources.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(source, encoding="utf-8")
    return paths


@pytest.mark.parametrize("name", ["plain", "hostile", "large"])
def test_nothing_is_requested_and_nothing_runs(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """The browser asks for the file alone; no script, no dialog, no message, no other element than words and pictures."""
    browser.open(pages[name])
    browser.ask("1")  # one more round trip, so that late events arrive
    asked = [e["request"]["url"] for e in browser.happened("Network.requestWillBeSent")]
    assert asked == [pages[name].as_uri()]
    assert browser.happened("Page.javascriptDialogOpening", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    assert browser.ask("document.querySelectorAll('script,img,iframe,object,embed,link,a,form,input,video,base').length") == 0
    assert browser.ask("document.title").endswith(": cycle 63")
    assert browser.ask("document.querySelectorAll('h1').length") == 1


def test_the_policy_of_the_page_stops_what_an_escape_might_miss(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """Even raw HTML in the page would load nothing and run nothing."""
    raw = "<img src='http://127.0.0.1:9/x.png' onerror='document.title=1'><script>document.title=2</script>"
    path = tmp_path / "raw.html"
    path.write_text(pages["plain"].read_text(encoding="utf-8").replace("<main>", "<main>" + raw), encoding="utf-8")
    browser.open(path)
    assert browser.ask("document.title").endswith(": cycle 63")
    sent = {e["request"]["url"] for e in browser.happened("Network.requestWillBeSent")}
    blocked = {e["requestId"] for e in browser.happened("Network.loadingFailed") if e.get("blockedReason") == "csp"}
    assert len(sent) == 1 or len(blocked) == len(sent) - 1


@pytest.mark.parametrize("width", [1180, 390])
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_the_page_itself_never_scrolls_sideways(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    """Names of ten thousand letters do not break the layout; wide tables scroll inside their frame."""
    browser.open(pages[name], width=width)
    assert browser.ask("document.documentElement.scrollWidth") <= width


def test_every_fold_opens_and_closes_by_click(browser: Browser, pages: dict[str, Path]) -> None:
    """The reader can fold and unfold each group of holds without any script."""
    browser.open(pages["large"])
    n = browser.ask("document.querySelectorAll('details').length")
    assert n == 5  # the rest of the moves, the rest of the ranking, three reasons to hold
    for i in range(n):
        fold = f"document.querySelectorAll('details')[{i}]"
        before = browser.ask(f"{fold}.open")
        assert before is False  # more than a dozen rows start folded
        tall = []
        for _ in range(2):
            browser.ask(f"{fold}.querySelector('summary').scrollIntoView({{block: 'center'}})")
            box = browser.ask(f"(b => [b.x + 20, b.y + b.height / 2])({fold}.querySelector('summary').getBoundingClientRect())")
            browser.click(*box)
            tall.append((browser.ask(f"{fold}.open"), browser.ask(f"{fold}.getBoundingClientRect().height")))
        assert [t[0] for t in tall] == [True, False]
        assert tall[0][1] > 20 * tall[1][1]


def test_dark_and_light_follow_the_reader_and_print_is_light(browser: Browser, pages: dict[str, Path]) -> None:
    """The ground is dark for who prefers dark, white for who prefers light, and white on paper for both."""
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for dark in (False, True):
        for media in ("screen", "print"):
            browser.open(pages["plain"], dark=dark, media=media)
            seen[dark, media] = browser.ask(ground)
    assert seen[False, "screen"] == seen[False, "print"] == seen[True, "print"] == "rgb(255, 255, 255)"
    red, green, blue = (int(v) for v in seen[True, "screen"][4:-1].split(","))
    assert max(red, green, blue) < 60


def test_print_shows_what_is_folded_and_fits_the_paper(browser: Browser, pages: dict[str, Path]) -> None:
    """On paper nothing is hidden, a line for the signature is there, and no table runs over the edge of A4."""
    browser.open(pages["large"], width=688, media="print")  # A4 less two margins of 14 mm, at 96 dots an inch
    assert browser.ask("document.querySelector('.sign').getBoundingClientRect().height") > 0
    folded = browser.ask("[...document.querySelectorAll('details')].map(d => d.querySelector('table').getBoundingClientRect().height)")
    assert min(folded) > 500
    assert browser.ask("Math.max(...[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right))") <= 688
    browser.open(pages["plain"])
    paper = base64.b64decode(browser.call("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})["data"])
    assert paper.startswith(b"%PDF-")


def test_strips_of_one_table_stand_exactly_below_their_axis(browser: Browser, pages: dict[str, Path]) -> None:
    """A line can be read against the ticks above it, in the first row and in the five hundredth."""
    browser.open(pages["large"])
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    places = browser.ask(
        "[...document.querySelectorAll('th.s')].map(h => [...h.closest('table').querySelectorAll('tr')]"
        ".map(r => r.cells[h.cellIndex]?.querySelector('svg')).filter(s => s).map(s => Math.round(s.getBoundingClientRect().x * 10)))"
    )
    assert [len(xs) for xs in places] == [
        41,
        41,
        295,
        295,
        4,
        41,
        461,
    ]  # budgets and gains twice, platforms, costs twice, each with its axis
    assert [len(set(xs)) for xs in places] == [1] * 7


def test_all_arms_are_there(browser: Browser, pages: dict[str, Path]) -> None:
    """500 ranked, 334 moved, 166 held."""
    browser.open(pages["large"])
    rows = browser.ask("[...document.querySelectorAll('table')].map(t => t.tBodies[0].rows.length)")
    assert rows[:2] == [40, 294]
    assert rows[3:5] == [40, 460]
    assert sum(rows[5:8]) == 166
