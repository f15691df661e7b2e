"""Ctrl-C in the middle of long work ends with a word, and leaves a ledger that is whole and can be gone on with."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

import closedloop as cl


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a child")
def test_an_interrupted_demo_leaves_a_consistent_ledger(tmp_path: Path) -> None:
    """Interrupted while it runs: status 130, one line and no traceback; every record verifies, and the next cycle runs."""
    command = [sys.executable, "-m", "closedloop", "demo", "--weeks", "30", "--out", str(tmp_path)]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background has it ignored, and hands that on
    )
    file = tmp_path / "loop.db"
    try:
        while sum(p.stat().st_size for p in tmp_path.glob("loop.db*")) < 500_000 and started.poll() is None:  # some days have been run
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        _, error = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130, error
    assert "interrupted" in error
    assert "Traceback" not in error
    from closedloop.cli.demo import WINDOW
    from closedloop.simulation import Market, small

    market = Market(small(), 7)
    with cl.ClosedLoop(window=WINDOW, ledger=file, name="demo", mode="shadow") as loop:
        loop.verify()
        done = loop.cycles
        assert done >= 1
        for day in range(done + 1):
            rows = market.day(day, market.equal_split())
        report = loop.run_cycle(rows, now=market.day_start(done + 1) + timedelta(hours=4))
        assert report.cycle == done + 1
