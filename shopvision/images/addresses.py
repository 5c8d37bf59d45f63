"""Connections to public addresses only: the address that was checked is the one that is connected to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from shopvision.errors import ItemError

NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolver = Callable[[str, int], list[str]]
SocketOptions = Iterable[Any]


def resolve(host: str, port: int) -> list[str]:
    """Every address of ``host``, as the system resolves it."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """False for private, loopback, link-local, shared, reserved, multicast and metadata addresses, however wrapped."""
    try:
        ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class CheckedBackend(httpcore.NetworkBackend):
    """Resolves names itself and refuses a host of which any address is not public.

    Checking and connecting use the same answer, so a name that changes its mind in between (DNS rebinding) gains
    nothing; TLS still verifies the name. Every redirect passes through here again.
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
            ItemError: ``address_refused``, or ``unavailable`` where the name does not resolve.
        """
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ItemError("unavailable", f"The host {host} cannot be resolved: {error}.") from None
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    raise ItemError("address_refused", f"The host {host} has the internal address {address}.")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return self._dialler.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure
