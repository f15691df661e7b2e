"""Every ledger of the library passes the suite that is shipped for anyone's."""

import sqlite3

import pytest

from closedloop.ledger import MemoryLedger, SqliteLedger
from closedloop.testing import LedgerConformance, LedgerSubject


class TestMemory(LedgerConformance):
    @pytest.fixture
    def subject(self):
        no_store = "there is no store behind it that another could touch"
        return LedgerSubject(
            ledger=MemoryLedger(),
            excused={
                "outlives_its_process": "it lasts as long as its process, which is what it is for",
                "two_handles_see_one_truth": no_store,
                "notices_an_edited_record": no_store,
                "notices_a_removed_record": no_store,
                "notices_reordered_records": no_store,
            },
        )


class TestSqlite(LedgerConformance):
    @pytest.fixture
    def subject(self, tmp_path):
        path = tmp_path / "loop.db"
        opened = [SqliteLedger(path)]

        def another() -> SqliteLedger:
            opened.append(SqliteLedger(path))
            return opened[-1]

        def reopen() -> SqliteLedger:
            opened[0].close()
            return another()

        def tamper(how: str) -> None:
            with sqlite3.connect(path) as store:
                if how == "edit":
                    store.execute("UPDATE entries SET body = replace(body, '3', '4') WHERE sequence = 3")
                elif how == "remove":
                    store.execute("DELETE FROM entries WHERE sequence = 3")
                else:
                    for old, new in ((2, -1), (3, 2), (-1, 3)):
                        store.execute("UPDATE entries SET sequence = ? WHERE sequence = ?", (new, old))
            store.close()

        yield LedgerSubject(ledger=opened[0], reopen=reopen, second=another, tamper=tamper)
        for ledger in opened:
            ledger.close()
