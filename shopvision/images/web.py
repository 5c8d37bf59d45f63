"""Pictures from https servers: public addresses only, within one time limit, redirects checked like first addresses."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from shopvision.errors import ItemError
from shopvision.settings import Settings

MAX_REDIRECTS = 3
ATTEMPTS = 3
RETRY_PAUSE_SECONDS = 0.3
REDIRECTS = {301, 302, 303, 307, 308}
RETRIED_STATUSES = {429, 500, 502, 503, 504}
HEADERS = [(b"User-Agent", b"shopvision"), (b"Accept", b"image/*"), (b"Accept-Encoding", b"identity")]


class _Retry(Exception):  # noqa: N818 - a signal between two methods, not an error
    """The server may answer differently in a moment."""


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


def check_length(settings: Settings, length: int, what: object) -> None:
    """Raise ``ItemError`` (``too_large_bytes``) where a picture has more bytes than allowed."""
    if length > settings.image_max_bytes:
        raise ItemError(
            "too_large_bytes", f"{what} has {length:,} bytes or more; {settings.image_max_bytes:,} are allowed."
        )


def read_within(settings: Settings, parts: Iterable[bytes], what: str, deadline: float) -> bytes:
    """Join a body's parts, watching its length and the clock (``time.monotonic()`` seconds) at each."""
    kept: list[bytes] = []
    length = 0
    for part in parts:
        length += len(part)
        check_length(settings, length, what)
        if time.monotonic() > deadline:
            raise ItemError("timeout", f"{what} comes too slowly: {length:,} bytes in time.")
        kept.append(part)
    return b"".join(kept)


class WebPictures:
    """One pool of connections; threads may share it."""

    def __init__(self, settings: Settings, *, network: Any | None, ssl_context: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._network = network
        self._ssl_context = ssl_context
        self._http: Any = None

    def close(self) -> None:
        """Close every connection."""
        if self._http is not None:
            self._http.close()

    def _pool(self) -> Any:
        import httpcore

        from shopvision.images.addresses import CheckedBackend

        if self._http is None:
            self._http = httpcore.ConnectionPool(
                ssl_context=self._ssl_context,
                network_backend=self._network or CheckedBackend(allow_private=self._settings.image_allow_private_hosts),
                max_connections=64,
                keepalive_expiry=30,
            )
        return self._http

    def ask(self, method: str, uri: str) -> tuple[bytes, str]:
        """GET or HEAD one picture, following redirects, trying again where the server is busy: (body, fingerprint).

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        deadline = time.monotonic() + self._settings.image_timeout_seconds
        for attempt in range(ATTEMPTS):
            try:
                return self._follow(method, uri, deadline)
            except _Retry as error:
                reason = str(error)
                pause = RETRY_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
                if attempt + 1 == ATTEMPTS or time.monotonic() + pause > deadline:
                    break
                time.sleep(pause)
        raise ItemError("unavailable", f"{uri}: {reason}, after {attempt + 1} attempts.")

    def _follow(self, method: str, uri: str, deadline: float) -> tuple[bytes, str]:
        address = uri
        for _ in range(MAX_REDIRECTS + 1):
            body, headers, target = self._ask(method, address, deadline)
            if target is None:
                return body, _http_mark(headers)
            address = urljoin(address, target)
            try:
                scheme = scheme_of(address, self._settings)
            except ItemError:
                scheme = "refused"
            if scheme not in {"https", "http"}:
                raise ItemError("redirect_refused", f"{uri} redirects to {address}, which is not https.")
        raise ItemError("redirect_refused", f"{uri} redirects more than {MAX_REDIRECTS} times.")

    def _ask(self, method: str, address: str, deadline: float) -> tuple[bytes, dict[str, str], str | None]:
        """One request: (body, headers, where it redirects to)."""
        import httpcore

        left = max(0.1, deadline - time.monotonic())
        timeouts = {"connect": min(5.0, left), "read": left, "write": left, "pool": left}
        try:
            with self._pool().stream(
                method, _ascii(address), headers=[*HEADERS, (b"Host", _host(address))], extensions={"timeout": timeouts}
            ) as answer:
                headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
                if answer.status in REDIRECTS and "location" in headers:
                    return b"", headers, headers["location"]
                _check_status(answer.status, address)
                length = headers.get("content-length", "0")
                check_length(self._settings, int(length) if length.isdigit() else 0, address)
                if method == "HEAD":
                    return b"", headers, None
                return read_within(self._settings, answer.iter_stream(), address, deadline), headers, None
        except httpcore.TimeoutException:
            raise ItemError("timeout", f"{address} did not answer in time.") from None
        except httpcore.UnsupportedProtocol as error:
            raise ItemError("bad_address", f"{address}: {error}.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _Retry(f"{type(error).__name__} {error}".strip()) from None


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


def _check_status(status: int, address: str) -> None:
    if status in RETRIED_STATUSES:
        raise _Retry(f"the server answered {status}")
    if status in {404, 410}:
        raise ItemError("not_found", f"{address}: the server answered {status}.")
    if status in {401, 403}:
        raise ItemError("forbidden", f"{address}: the server answered {status}.")
    if status != 200:
        raise ItemError("http_error", f"{address}: the server answered {status}.")


def _http_mark(headers: dict[str, str]) -> str:
    if "etag" in headers:
        return headers["etag"].removeprefix("W/")
    if "last-modified" in headers and "content-length" in headers:
        return f"{headers['last-modified']}-{headers['content-length']}"
    return f"unmarked-{time.time_ns()}"
