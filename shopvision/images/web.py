"""Pictures from https servers: public addresses only, within one time limit, redirects checked like first addresses."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from shopvision.errors import ItemError
from shopvision.images.transfer import RETRIED_STATUSES, AnotherTry, check_length, patiently, read_within, retry_after
from shopvision.settings import Settings

if TYPE_CHECKING:
    import httpcore

MAX_REDIRECTS = 3
REDIRECTS = {301, 302, 303, 307, 308}
NOT_MODIFIED = 304
HEADERS = [(b"User-Agent", b"shopvision"), (b"Accept", b"image/*"), (b"Accept-Encoding", b"identity")]


Headers = Sequence[tuple[bytes, bytes]]


class _NotModified(Exception):  # noqa: N818 - an answer, not an error
    """The server has what was asked about."""


def scheme_of(uri: str, settings: Settings) -> str:
    """The scheme of a picture's address, if pictures are fetched by it.

    Raises:
        ItemError: ``bad_address`` or ``scheme_refused``.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise ItemError("bad_address", f"{uri}: {error}.") from None
    if parts.scheme in {"file", "s3", "https"} or (parts.scheme == "http" and settings.image_allow_private_hosts):
        return parts.scheme
    raise ItemError("scheme_refused", f"{uri}: only file://, s3:// and https:// pictures are fetched.")


class WebPictures:
    """One pool of connections; threads may share it."""

    def __init__(
        self, settings: Settings, *, network: httpcore.NetworkBackend | None, ssl_context: ssl.SSLContext | None
    ) -> None:
        self._settings = settings
        self._network = network
        self._ssl_context = ssl_context
        self._http: httpcore.ConnectionPool | None = None
        self._opening = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        if self._http is not None:
            self._http.close()

    def _pool(self) -> httpcore.ConnectionPool:
        import httpcore

        from shopvision.images.addresses import CheckedBackend

        with self._opening:
            if self._http is None:
                self._http = httpcore.ConnectionPool(
                    ssl_context=self._ssl_context,
                    network_backend=self._network
                    or CheckedBackend(allow_private=self._settings.image_allow_private_hosts),
                    max_connections=64,
                    keepalive_expiry=30,
                )
            return self._http

    def fetch(self, uri: str) -> tuple[bytes, str]:
        """One picture's bytes and its mark, following redirects, trying again where the server is busy.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        return self._ask("GET", uri)

    def fetch_unless(self, uri: str, mark: str) -> tuple[bytes, str] | None:
        """Like ``fetch``; None where the server says that the picture still has the ETag ``mark``.

        A server that refuses HEAD, as for addresses signed for GET, is spared the body of what did not change. Weak
        ETags and dates are not asked about: they may stay the same when the bytes change.
        """
        try:
            return self._ask("GET", uri, [(b"If-None-Match", mark.encode("latin-1"))] if mark.startswith('"') else [])
        except _NotModified:
            return None

    def mark(self, uri: str) -> str:
        """What the server says of the picture without sending it; a mark of its own where it says nothing.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        try:
            return self._ask("HEAD", uri)[1]
        except ItemError as error:
            # Some servers, and addresses signed for GET, refuse HEAD: fetching will tell what is wrong, if anything is.
            if error.code in {"http_error", "forbidden"}:
                return _http_mark({})
            raise

    def _ask(self, method: str, uri: str, conditions: Headers = ()) -> tuple[bytes, str]:
        deadline = time.monotonic() + self._settings.image_timeout_seconds
        return patiently(uri, deadline, lambda: self._follow(method, uri, conditions, deadline))

    def _follow(self, method: str, uri: str, conditions: Headers, deadline: float) -> tuple[bytes, str]:
        address = uri
        for _ in range(MAX_REDIRECTS + 1):
            body, headers, target = self._request(method, address, conditions, deadline)
            if target is None:
                return body, _http_mark(headers)
            try:
                address = urljoin(address, target)
                scheme = scheme_of(address, self._settings)
            except (ItemError, ValueError):
                scheme = "refused"
            if scheme not in {"https", "http"}:
                raise ItemError("redirect_refused", f"{uri} redirects to {target[:200]!r}, which is not https.")
        raise ItemError("redirect_refused", f"{uri} redirects more than {MAX_REDIRECTS} times.")

    def _request(
        self, method: str, address: str, conditions: Headers, deadline: float
    ) -> tuple[bytes, dict[str, str], str | None]:
        """One request: (body, headers, where it redirects to)."""
        import httpcore

        # the pool waits for so many seconds; the others are points in time, see DeadlineStream
        timeouts = {
            "pool": max(0.0, deadline - time.monotonic()),
            "connect": deadline,
            "read": deadline,
            "write": deadline,
        }
        try:
            with self._pool().stream(
                method,
                _ascii(address),
                headers=[*HEADERS, *conditions, (b"Host", _host(address))],
                extensions={"timeout": timeouts},
            ) as answer:
                headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
                if answer.status in REDIRECTS and "location" in headers:
                    return b"", headers, headers["location"]
                if answer.status == NOT_MODIFIED and conditions:
                    raise _NotModified
                _check_status(answer.status, headers, address)
                length = headers.get("content-length", "0")
                check_length(self._settings, int(length) if length.isdigit() else 0, address)
                if method == "HEAD":
                    return b"", headers, None
                encoding = headers.get("content-encoding")
                body = read_within(self._settings, answer.iter_stream(), address, deadline, encoding=encoding)
                return body, headers, None
        except httpcore.TimeoutException:
            raise ItemError("timeout", f"{address} did not answer in time.") from None
        except httpcore.UnsupportedProtocol as error:
            raise ItemError("bad_address", f"{address}: {error}.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise AnotherTry(f"{type(error).__name__} {error}".strip()) from None


def _ascii(address: str) -> str:
    """The address with other alphabets escaped, as a browser would send it."""
    parts = urlsplit(address)
    try:
        host = _host(address).decode("ascii")
    except UnicodeError as error:
        raise ItemError("bad_address", f"{address}: {error}.") from None
    safe = "/%:=&?~+!$,;'@()*[]"
    return urlunsplit((parts.scheme, host, quote(parts.path or "/", safe=safe), quote(parts.query, safe=safe), ""))


def _host(address: str) -> bytes:
    parts = urlsplit(address)
    if not parts.hostname or parts.username is not None:
        raise ItemError("bad_address", f"{address} has no host, or a user name before it.")
    try:
        name = parts.hostname.encode("idna") if not parts.hostname.isascii() else parts.hostname.encode("ascii")
    except UnicodeError as error:
        raise ItemError("bad_address", f"{address}: {error}.") from None
    bracketed = b"[" + name + b"]" if b":" in name else name
    return bracketed + (b":" + str(parts.port).encode() if parts.port is not None else b"")


def _check_status(status: int, headers: Mapping[str, str], address: str) -> None:
    if status in RETRIED_STATUSES:
        raise AnotherTry(f"the server answered {status}", after=retry_after(headers.get("retry-after")))
    if status in {404, 410}:
        raise ItemError("not_found", f"{address}: the server answered {status}.")
    if status in {401, 403}:
        raise ItemError("forbidden", f"{address}: the server answered {status}.")
    if status != 200:
        raise ItemError("http_error", f"{address}: the server answered {status}.")


def _http_mark(headers: dict[str, str]) -> str:
    etag = headers.get("etag", "")
    if etag.startswith('"'):
        return etag
    # A weak ETag alone may stay the same when the bytes change.
    known = [headers[name] for name in ("last-modified", "content-length") if name in headers]
    if len(known) == 2 or (etag and known):
        return " ".join([etag, *known]).strip()
    return f"unmarked-{time.time_ns()}"
