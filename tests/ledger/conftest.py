"""The ledgers that every promise is tested on, and a real PostgreSQL for one of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from closedloop.ledger import MemoryLedger, PostgresLedger, SqliteLedger

POSTGRES = "CLOSEDLOOP_POSTGRES"  # connection string of a server to use in place of one started here


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's own programs, as Debian's package and others lay them out."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The connection string of a real server on loopback: a given one, or one started for these tests."""
    pytest.importorskip("psycopg")
    given = os.environ.get(POSTGRES)
    if given:
        yield given
        return
    programs = _programs()
    if programs is None:
        pytest.skip(f"no PostgreSQL here: install Debian's package postgresql, or set {POSTGRES} to a connection string")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses root
    folder = Path(tempfile.mkdtemp(prefix="closedloop-postgres-"))
    if user is not None:
        shutil.chown(folder, user, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*command: str) -> None:
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=120)

    cluster, log = str(folder / "cluster"), str(folder / "log")
    run(str(programs / "initdb"), "-D", cluster, "-U", "closedloop", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"  # the disk is not what is tested
    run(str(programs / "pg_ctl"), "-D", cluster, "-l", log, "-w", "-o", options, "start")
    try:
        yield f"host=127.0.0.1 port={port} user=closedloop dbname=postgres"
    finally:
        run(str(programs / "pg_ctl"), "-D", cluster, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def schema() -> str:
    """A schema name of its own for each test."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, schema: str) -> Iterator[Any]:
    makers: dict[str, Callable[[], Any]] = {
        "memory": MemoryLedger,
        "sqlite": lambda: SqliteLedger(tmp_path / "ledger.db"),
        "postgres": lambda: PostgresLedger(request.getfixturevalue("postgres"), schema=schema),
    }
    made = makers[request.param]()
    yield made
    made.close()
