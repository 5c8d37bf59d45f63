"""An HTTP server for probes that strangers cannot exhaust: few connections at a time, none of them for long."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any

MOST_CONNECTIONS = 32
SILENT_SECONDS = 5.0  # for each read and write
LONGEST_SECONDS = 20.0  # of one connection, however it trickles; /metrics may wait for Postgres and the broker


class ProbeServer(ThreadingHTTPServer):
    """One thread per connection. The oldest gives way to a new one where there are too many."""

    daemon_threads = True
    request_queue_size = 128  # connections that wait to be accepted; beyond that, the kernel lets them try for seconds

    def __init__(self, *args: Any) -> None:
        self._open: dict[socket.socket, float] = {}  # when each began; oldest first
        self._guard = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called for each connection that was accepted."""
        request.settimeout(SILENT_SECONDS)
        with self._guard:
            while len(self._open) >= MOST_CONNECTIONS:
                self._end(next(iter(self._open)))
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Called by the connection's thread at its end."""
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second."""
        with self._guard:
            for request in [one for one, began in self._open.items() if time.monotonic() - began > LONGEST_SECONDS]:
                self._end(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody who hangs up is no fault of ours."""

    def _end(self, request: socket.socket) -> None:
        """Its thread wakes from reading or writing, and closes it."""
        self._open.pop(request, None)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
