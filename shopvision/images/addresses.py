"""Connections to public addresses only: the address that was checked is the one that is connected to."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from shopvision.errors import ItemError
from shopvision.images.special_addresses import is_public

CONNECT_SECONDS = 5.0

Resolver = Callable[[str, int], list[str]]
SocketOptions = Iterable[Any]


def resolve(host: str, port: int) -> list[str]:
    """Every address of ``host``, as the system resolves it."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left


class DeadlineStream(httpcore.NetworkStream):
    """A connection whose timeouts are points in time (``time.monotonic()`` seconds) instead of durations.

    A server that sends one byte before each timeout would otherwise hold a thread for ever: headers are read in many
    small steps, and nobody outside sees them.
    """

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """At most ``max_bytes`` bytes; none where the server has closed."""
        return self._inner.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send everything."""
        self._inner.write(buffer, _left(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted."""
        return DeadlineStream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        """Whether it is readable, and other facts the pool asks for."""
        return self._inner.get_extra_info(info)


class CheckedBackend(httpcore.NetworkBackend):
    """Resolves names itself and refuses a host of which any address is not public.

    Checking and connecting use the same answer, so a name that changes its mind in between (DNS rebinding) gains
    nothing; TLS still verifies the name. Every redirect passes through here again. Timeouts are points in time, see
    ``DeadlineStream``.
    """

    def __init__(
        self, *, allow_private: bool, resolver: Resolver = resolve, dialler: httpcore.NetworkBackend | None = None
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolver
        self._dialler = dialler or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers.

        Raises:
            ItemError: ``address_refused``, or ``unavailable`` where the name does not exist.
        """
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise httpcore.ConnectError(f"the host {host} cannot be resolved now") from None
            raise ItemError("unavailable", f"The host {host} cannot be resolved: {error}.") from None
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    raise ItemError("address_refused", f"The host {host} has the internal address {address}.")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            left = _left(timeout)
            seconds = CONNECT_SECONDS if left is None else min(CONNECT_SECONDS, left)
            try:
                stream = self._dialler.connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return DeadlineStream(stream)
        raise failure
