"""Postgres: one engine per process, sessions, and COPY-based upserts."""

from shopvision.database.copy_upsert import copy_rows, copy_upsert
from shopvision.database.engine import connect, dispose_engine, get_engine, snapshot, transaction

__all__ = ["connect", "copy_rows", "copy_upsert", "dispose_engine", "get_engine", "snapshot", "transaction"]
