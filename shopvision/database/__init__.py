"""Postgres: one engine per process, sessions, COPY-based upserts, lists as arrays, and what an error means."""

from shopvision.database.arrays import among
from shopvision.database.copy_upsert import copy_rows, copy_upsert
from shopvision.database.engine import connect, dispose_engine, get_engine, snapshot, transaction
from shopvision.database.faults import Fault, explain, fault_of, is_passing

__all__ = [
    "Fault",
    "among",
    "connect",
    "copy_rows",
    "copy_upsert",
    "dispose_engine",
    "explain",
    "fault_of",
    "get_engine",
    "is_passing",
    "snapshot",
    "transaction",
]
