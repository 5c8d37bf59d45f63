"""Fetching over HTTP through the real checks: the only thing replaced is where a public address leads."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shopvision.images import PictureDoor
from shopvision.images.addresses import CheckedBackend
from shopvision.settings import get_settings
from tests.integration.images.site import (
    PUBLIC,
    Dialler,
    Site,
    answer,
    asking_for_a_second,
    jpeg,
    refused,
    resolver,
    silent,
)


def test_a_picture_and_its_fingerprint(door: PictureDoor, site: Site, dialler: Dialler) -> None:
    site.pages["/a.jpg"] = answer(jpeg(), ETag='"v1"')
    picture = door.fetch("http://cdn.example/a.jpg")
    assert picture.data == jpeg()
    assert picture.fingerprint == door.fingerprint("http://cdn.example/a.jpg") == '"v1"'
    assert site.asked == ["GET /a.jpg", "HEAD /a.jpg"]
    assert set(dialler.dialled) == {PUBLIC}


def test_a_server_without_marks_is_always_fetched_again(door: PictureDoor, site: Site) -> None:
    site.pages["/a.jpg"] = answer(jpeg())
    assert door.fingerprint("http://cdn.example/a.jpg") != door.fingerprint("http://cdn.example/a.jpg")


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_a_server_that_refuses_head_is_asked_with_get(door: PictureDoor, site: Site, status: int) -> None:
    def page(request: BaseHTTPRequestHandler) -> None:
        (answer(jpeg(), ETag='"v1"') if request.command == "GET" else answer(b"", status))(request)

    site.pages["/a.jpg"] = page
    picture = door.fetch("http://cdn.example/a.jpg")
    assert door.fingerprint("http://cdn.example/a.jpg") != picture.fingerprint


@pytest.mark.parametrize("head", [200, 403, 405])
def test_an_unchanged_picture_costs_no_body(door: PictureDoor, site: Site, head: int) -> None:
    """By HEAD, or where that is refused by a request for what has another ETag."""
    bodies = []

    def page(request: BaseHTTPRequestHandler) -> None:
        if request.command == "HEAD":
            answer(b"" if head != 200 else jpeg(), head, ETag=etag)(request)
        elif request.headers["If-None-Match"] == etag:
            answer(b"", 304, ETag=etag)(request)
        else:
            bodies.append(request.path)
            answer(jpeg(), ETag=etag)(request)

    etag, uri = '"v1"', "http://cdn.example/a.jpg"
    site.pages["/a.jpg"] = page
    known = door.fetch(uri).fingerprint
    assert door.fetch_changed(uri, known) is None
    assert len(bodies) == 1
    etag = '"v2"'
    changed = door.fetch_changed(uri, known)
    assert changed is not None
    assert (changed.fingerprint, changed.data) == ('"v2"', jpeg())
    assert len(bodies) == 2


def test_weak_marks_are_not_asked_about(door: PictureDoor, site: Site) -> None:
    def page(request: BaseHTTPRequestHandler) -> None:
        assert request.headers["If-None-Match"] is None
        (answer(jpeg(), ETag='W/"1"') if request.command == "GET" else answer(b"", 405))(request)

    site.pages["/a.jpg"] = page
    uri = "http://cdn.example/a.jpg"
    assert door.fetch_changed(uri, door.fetch(uri).fingerprint) is not None


def test_marks_that_say_too_little_are_never_equal(door: PictureDoor, site: Site) -> None:
    date = "Sat, 21 Nov 2026 05:00:00 GMT"
    site.pages["/weak.jpg"] = answer(b"old", ETag='W/"1"', Last_Modified=date)
    before = door.fingerprint("http://cdn.example/weak.jpg")
    assert before == door.fingerprint("http://cdn.example/weak.jpg")
    site.pages["/weak.jpg"] = answer(b"newer", ETag='W/"1"', Last_Modified=date)
    assert before != door.fingerprint("http://cdn.example/weak.jpg")


def test_other_alphabets_and_queries_in_addresses(door: PictureDoor, site: Site) -> None:
    site.pages[f"/{quote('상품')}.jpg?w=2&x=%20"] = answer(jpeg())
    assert door.fetch("http://cdn.example/상품.jpg?w=2&x=%20").data == jpeg()


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (410, "not_found"), (403, "forbidden"), (418, "http_error")]
)
def test_statuses(door: PictureDoor, site: Site, status: int, code: str) -> None:
    site.pages["/a.jpg"] = answer(b"", status)
    assert refused(door, "http://cdn.example/a.jpg") == code
    assert len(site.asked) == 1


def test_a_busy_server_is_asked_again(door: PictureDoor, site: Site) -> None:
    def busy_once(request: BaseHTTPRequestHandler) -> None:
        answer(b"", 503)(request) if len(site.asked) == 1 else answer(jpeg())(request)

    site.pages["/a.jpg"] = busy_once
    assert door.fetch("http://cdn.example/a.jpg").data == jpeg()
    site.pages["/b.jpg"] = answer(b"", 503)
    assert refused(door, "http://cdn.example/b.jpg") == "unavailable"


def test_a_server_that_asks_for_time_gets_it(door: PictureDoor, site: Site) -> None:
    site.pages["/a.jpg"] = asking_for_a_second(429, answer(jpeg()))
    assert door.fetch("http://cdn.example/a.jpg").data == jpeg()
    assert len(site.asked) == 2


def test_a_picture_that_is_compressed_once_more(door: PictureDoor, site: Site) -> None:
    site.pages["/a.jpg"] = answer(gzip.compress(jpeg()), Content_Encoding="gzip")
    assert door.fetch("http://cdn.example/a.jpg").data == jpeg()
    site.pages["/b.jpg"] = answer(jpeg(), Content_Encoding="br")
    assert refused(door, "http://cdn.example/b.jpg") == "content_encoding"


def test_a_silent_server_times_out(door: PictureDoor, site: Site) -> None:
    site.pages["/a.jpg"] = silent
    assert refused(door, "http://cdn.example/a.jpg") == "timeout"


def test_a_slow_drip_times_out(door: PictureDoor, site: Site) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        try:
            for _ in range(300):
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.1)
        except OSError:
            return

    site.pages["/a.jpg"] = drip
    assert refused(door, "http://cdn.example/a.jpg") == "timeout"  # at its end it would be truncated


def test_slowly_dripping_headers_time_out(door: PictureDoor, site: Site) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        try:
            for byte in b"HTTP/1.1 200 OK\r\nX-Padding: " + 300 * b"x":
                request.wfile.write(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            return

    site.pages["/a.jpg"] = drip
    assert refused(door, "http://cdn.example/a.jpg") == "timeout"  # at its end there would be no answer


def test_a_body_that_is_cut_is_asked_for_again(door: PictureDoor, site: Site) -> None:
    def cut_once(request: BaseHTTPRequestHandler) -> None:
        body = jpeg()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:100] if len(site.asked) == 1 else body)

    site.pages["/a.jpg"] = cut_once
    assert door.fetch("http://cdn.example/a.jpg").data == jpeg()
    assert len(site.asked) == 2


def test_ten_gigabytes_are_not_read(door: PictureDoor, site: Site) -> None:
    sent = threading.Event()

    def huge(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(10 * 2**30))
        request.end_headers()
        try:
            for _ in range(64):
                request.wfile.write(bytes(2**20))
            sent.set()
        except OSError:
            return

    site.pages["/a.jpg"] = huge
    assert refused(door, "http://cdn.example/a.jpg") == "too_large_bytes"
    assert not sent.is_set()


def test_an_endless_body_without_a_length_is_cut(
    site: Site, dialler: Dialler, set_environment: Callable[..., None]
) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(2**16))
        except OSError:
            return

    site.pages["/a.jpg"] = endless
    set_environment(SHOPVISION_IMAGE_MAX_BYTES="500000", SHOPVISION_IMAGE_ALLOW_PRIVATE_HOSTS="true")
    with PictureDoor(
        get_settings(), network=CheckedBackend(allow_private=False, resolver=resolver, dialler=dialler)
    ) as door:
        assert refused(door, "http://cdn.example/a.jpg") == "too_large_bytes"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/a.jpg",
        "http://localhost/a.jpg",
        "http://2130706433/a.jpg",
        "http://0x7f.1/a.jpg",
        "http://[::1]/a.jpg",
        "http://[::ffff:127.0.0.1]/a.jpg",
        "http://169.254.169.254/latest/meta-data",
        "http://inside.example/a.jpg",
        "http://both.example/a.jpg",
        "http://10.1.2.3/a.jpg",
        "http://0.0.0.0/a.jpg",
    ],
)
def test_internal_addresses_are_refused(door: PictureDoor, dialler: Dialler, uri: str) -> None:
    assert refused(door, uri) == "address_refused"
    assert dialler.dialled == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/a.jpg",
        "http://169.254.169.254/latest",
        "http://inside.example/a.jpg",
        "//inside.example/a.jpg",
    ],
)
def test_redirects_to_internal_addresses_are_refused(
    door: PictureDoor, site: Site, dialler: Dialler, target: str
) -> None:
    site.pages["/a.jpg"] = answer(b"", 302, Location=target)
    assert refused(door, "http://cdn.example/a.jpg") == "address_refused"
    assert dialler.dialled == [PUBLIC]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "s3://shop/secret.jpg", "ftp://cdn.example/a.jpg", "/a.jpg", "https://[x"]
)
def test_redirects_elsewhere_and_in_circles_are_refused(door: PictureDoor, site: Site, target: str) -> None:
    site.pages["/a.jpg"] = answer(b"", 302, Location=target)
    assert refused(door, "http://cdn.example/a.jpg") == "redirect_refused"


def test_a_redirect_within_the_rules_is_followed(door: PictureDoor, site: Site) -> None:
    site.pages["/a.jpg"] = answer(b"", 301, Location="/b.jpg")
    site.pages["/b.jpg"] = answer(jpeg())
    assert door.fetch("http://cdn.example/a.jpg").data == jpeg()


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("http://cdn.example/a.jpg", "scheme_refused"),
        ("ftp://cdn.example/a.jpg", "scheme_refused"),
        ("a.jpg", "scheme_refused"),
        ("data:image/png;base64,AAAA", "scheme_refused"),
        ("https://[bad/a.jpg", "bad_address"),
        ("https://x:99999/a", "bad_address"),
        ("https:///a.jpg", "bad_address"),
        ("https://user:secret@cdn.example/a.jpg", "bad_address"),
        ("https://no-such-host.invalid/a.jpg", "unavailable"),
        ("s3://bucket-only", "bad_address"),
        ("file://host/a.jpg", "bad_address"),
        ("file:/a.jpg", "bad_address"),
    ],
)
def test_wrong_addresses(uri: str, code: str) -> None:
    with PictureDoor(get_settings()) as door:
        assert refused(door, uri) == code


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(
    site: Site, dialler: Dialler, set_environment: Callable[..., None]
) -> None:
    """DNS rebinding: the second answer would lead inside."""
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    site.pages["/a.jpg"] = answer(jpeg(), Connection="close")
    set_environment(SHOPVISION_IMAGE_ALLOW_PRIVATE_HOSTS="true")
    network = CheckedBackend(allow_private=False, resolver=lambda *_: next(answers), dialler=dialler)
    with PictureDoor(get_settings(), network=network) as door:
        assert door.fetch("http://moody.example/a.jpg").data == jpeg()
        assert refused(door, "http://moody.example/a.jpg") == "address_refused"
    assert dialler.dialled == [PUBLIC]


def tls_ends(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server that has a certificate for ``name``, and a client that trusts this certificate alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


@pytest.mark.parametrize(("certified", "code"), [("cdn.example", None), ("other.example", "unavailable")])
def test_tls_is_for_the_name_though_the_address_is_dialled(
    site: Site, dialler: Dialler, tmp_path: Path, certified: str, code: str | None
) -> None:
    server, client = tls_ends(certified, tmp_path)
    asked_for: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    assert site.server is not None
    site.server.socket = server.wrap_socket(site.server.socket, server_side=True)
    hosts: list[str | None] = []

    def page(request: BaseHTTPRequestHandler) -> None:
        hosts.append(request.headers["Host"])
        answer(jpeg())(request)

    site.pages["/a.jpg"] = page
    network = CheckedBackend(allow_private=False, resolver=resolver, dialler=dialler)
    with PictureDoor(get_settings(), network=network, ssl_context=client) as door:
        if code is None:
            assert door.fetch("https://cdn.example/a.jpg").data == jpeg()
            assert hosts == ["cdn.example"]
        else:
            assert refused(door, "https://cdn.example/a.jpg") == code
    assert set(asked_for) == {"cdn.example"}
