"""Fixtures shared by every room's tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: examples are bounded in number, not in time. The landing check draws the same examples each time; every
# other run draws new ones.
settings.register_profile("closedloop", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("closedloop")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data in ../shared/data are not here")
    return SHARED_DATA
