"""Anyone's package adds a platform: a real one is built, installed, found by its entry point, and certified by its own tests."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from closedloop.testing import PLATFORM_CHECKS

PACKAGE = Path(__file__).parent / "closedloop-parkbench"


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The example package, built and installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    options = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *options, str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode and "hatchling" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("hatchling, which builds the package, is not here and cannot be fetched")
    assert done.returncode == 0, done.stderr
    return target


def python(installed: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that has the example package installed."""
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=cwd)


def test_found_by_its_entry_point_and_loaded_on_request(installed):
    """The name is listed without importing the package; asking for it gives the adapter."""
    code = """
import sys
from closedloop.platforms.registry import available_platforms, load_platform
assert "parkbench" in available_platforms(), available_platforms()
assert "closedloop_parkbench" not in sys.modules
kind = load_platform("parkbench")
assert (kind.__module__, kind.__name__) == ("closedloop_parkbench", "ParkbenchPlatform")
"""
    done = python(installed, "-c", code)
    assert done.returncode == 0, done.stderr


def test_certified_by_its_own_tests(installed, tmp_path):
    """Its test module, a subclass of the shipped suite, runs every check and passes."""
    tests = str(PACKAGE / "tests")
    done = python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, "-c", os.devnull, tests, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(PLATFORM_CHECKS) + 1} passed" in done.stdout


def test_not_found_where_it_is_not_installed():
    """Without the package the name is unknown, and what there is is listed."""
    code = """
from closedloop.errors import UnknownPlatformError
from closedloop.platforms.registry import load_platform
try:
    load_platform("parkbench")
except UnknownPlatformError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "parkbench" in done.stdout
