"""Prometheus counters in files that are written and not mapped.

Writing to a mapped file without room on its disk kills the process by SIGBUS, and with it the work that was counted.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import structlog
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

log = structlog.get_logger(__name__)

_HEADER_BYTES = 8  # how many bytes are used, and padding
# What reading a file raises that is empty, cut off or overwritten.
_DAMAGED = (OSError, struct.error, ValueError, RuntimeError, TypeError, LookupError)


class CounterFile(MmapedDict):
    """The library's file format, kept in memory and written after each change.

    What cannot be written now (a full disk) stands in memory and is written with the next change.
    """

    def __init__(self, filename: str) -> None:
        self._path = Path(filename)
        self._positions: dict[str, int] = {}
        self._m: Any = bytearray(_HEADER_BYTES)
        self._used = _HEADER_BYTES
        self._refused = False
        try:
            for key, value, timestamp, _ in list(self.read_all_values_from_file(filename)):  # type: ignore[no-untyped-call]
                self._put(key, value, timestamp)
        except FileNotFoundError:
            pass
        except _DAMAGED as error:
            log.warning("counters_begin_anew", path=filename, error=str(error))

    def read_value(self, key: str) -> tuple[float, float]:
        """Value and timestamp; zero where nothing was counted yet."""
        if key not in self._positions:
            self._put(key, 0.0, 0.0)
        value, timestamp = struct.unpack_from("dd", self._m, self._positions[key])
        return value, timestamp

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Set a value; never raises for want of room."""
        self._put(key, value, timestamp)
        try:
            self._save()
            self._refused = False
        except OSError as error:
            if not self._refused:
                log.warning("counters_not_written", path=str(self._path), error=error.strerror)
            self._refused = True

    def close(self) -> None:
        """Nothing is held open."""

    def _put(self, key: str, value: float, timestamp: float) -> None:
        if key not in self._positions:
            encoded = key.encode()
            padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
            self._m += struct.pack(f"i{len(padded)}sdd", len(encoded), padded, value, timestamp)
            self._used = len(self._m)
            self._positions[key] = self._used - 16
        struct.pack_into("dd", self._m, self._positions[key], value, timestamp)

    def _save(self) -> None:
        """The header last: a reader sees no entry that is not there yet."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            body = memoryview(self._m)[_HEADER_BYTES:]
            written = 0
            while written < len(body):
                written += os.pwrite(descriptor, body[written:], _HEADER_BYTES + written)
            os.pwrite(descriptor, struct.pack("ii", self._used, 0), 0)
        finally:
            os.close(descriptor)


class CounterFiles(MultiProcessCollector):
    """Sums the files of a folder; leaves out those that cannot be read."""

    def collect(self) -> Any:
        """Metrics of all processes together."""
        files = [str(path) for path in Path(self._path).glob("*.db") if _readable(str(path))]
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call] # not typed there


def _readable(path: str) -> bool:
    try:
        MultiProcessCollector.merge([path])  # type: ignore[no-untyped-call] # not typed there
    except _DAMAGED as error:
        log.warning("counters_unreadable", path=path, error=str(error))
        return False
    return True
