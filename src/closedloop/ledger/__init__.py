"""Append-only memory of the loop."""

from closedloop.ledger.chain import Head
from closedloop.ledger.memory import MemoryLedger
from closedloop.ledger.postgres import PostgresLedger
from closedloop.ledger.sqlite import SqliteLedger
from closedloop.records.codec import canonical, decode, encode

__all__ = ["Head", "MemoryLedger", "PostgresLedger", "SqliteLedger", "canonical", "decode", "encode"]
