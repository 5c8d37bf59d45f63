"""Fetching through the real checks, from real servers: the only thing replaced is where a public address leads."""

from __future__ import annotations

import io
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from shopvision.errors import ItemError, JobError
from shopvision.images import PictureDoor, allow_image_root, allowed_image_roots
from shopvision.images.addresses import CheckedBackend, is_public
from shopvision.images.reasons import REASONS
from shopvision.settings import get_settings

PUBLIC = "93.184.215.14"
NAMES = {"cdn.example": [PUBLIC], "inside.example": ["10.0.0.7"], "both.example": [PUBLIC, "127.0.0.1"]}


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass
class Site:
    """A web server on loopback whose pages are functions."""

    pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    server: ThreadingHTTPServer | None = None


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(f"{self.command} {self.path}")
            page = site.pages.get(self.path)
            if page is None:
                self.send_error(404)
            else:
                page(self)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.server, site.port = server, server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()


class Dialler(httpcore.SyncBackend):
    """Leads the public address to the test site, and notes every address that was dialled."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.dialled: list[str] = []

    def connect_tcp(self, host: str, *args: object, **kwargs: object) -> httpcore.NetworkStream:
        self.dialled.append(host)
        assert host == PUBLIC
        return super().connect_tcp("127.0.0.1", self.port)


def resolver(host: str, port: int) -> list[str]:
    if host in NAMES:
        return NAMES[host]
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@pytest.fixture
def dialler(site: Site) -> Dialler:
    return Dialler(site.port)


@pytest.fixture
def door(
    dialler: Dialler, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> Iterator[PictureDoor]:
    """Strict about addresses, but speaks http so that the site needs no certificate."""
    set_environment(SHOPVISION_IMAGE_TIMEOUT_SECONDS="2", SHOPVISION_IMAGE_ALLOW_PRIVATE_HOSTS="true")
    network = CheckedBackend(allow_private=False, resolver=resolver, dialler=dialler)
    with PictureDoor(get_settings(), network=network) as opened:
        yield opened


def answer(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    return page


def refused(door: PictureDoor, uri: str) -> str:
    with pytest.raises(ItemError) as error:
        door.fetch(uri)
    assert error.value.code in REASONS
    assert "\n" not in error.value.message
    return error.value.code


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


def test_a_silent_server_times_out(door: PictureDoor, site: Site) -> None:
    site.pages["/a.jpg"] = lambda _: time.sleep(4)
    started = time.monotonic()
    assert refused(door, "http://cdn.example/a.jpg") == "timeout"
    assert time.monotonic() - started < 3.5


def test_a_slow_drip_times_out(door: PictureDoor, site: Site) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        try:
            for _ in range(50):
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.1)
        except OSError:
            return

    site.pages["/a.jpg"] = drip
    started = time.monotonic()
    assert refused(door, "http://cdn.example/a.jpg") == "timeout"
    assert time.monotonic() - started < 3.5


def test_slowly_dripping_headers_time_out(door: PictureDoor, site: Site) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        try:
            for byte in b"HTTP/1.1 200 OK\r\nX-Padding: " + 50 * b"x":
                request.wfile.write(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            return

    site.pages["/a.jpg"] = drip
    started = time.monotonic()
    assert refused(door, "http://cdn.example/a.jpg") == "timeout"
    assert time.monotonic() - started < 3.5


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


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("198.18.0.1", False),
        ("168.63.129.16", False),
        ("fec0::1", False),
        ("::127.0.0.1", False),
        ("64:ff9b:1::a00:1", False),
        ("not an address", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


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


# Local files


@pytest.fixture
def root(tmp_path: Path, set_environment: Callable[..., None]) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.jpg").write_bytes(jpeg())
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    set_environment(SHOPVISION_IMAGE_ROOTS=str(root))
    return root


def test_a_file_and_its_fingerprint(root: Path) -> None:
    with PictureDoor(get_settings()) as door:
        uri = f"file://{root}/a.jpg"
        picture = door.fetch(uri)
        assert picture.data == jpeg()
        assert door.fingerprint(uri) == picture.fingerprint
        os.utime(root / "a.jpg", ns=(1, 1))
        assert door.fingerprint(uri) != picture.fingerprint


def test_names_with_odd_characters(root: Path) -> None:
    (root / "빨강 #1?.jpg").write_bytes(jpeg())
    with PictureDoor(get_settings()) as door:
        assert door.fetch(f"file://{root}/빨강 #1?.jpg").data == jpeg()
        assert door.fetch((root / "빨강 #1?.jpg").as_uri()).data == jpeg()


def test_names_that_are_not_utf8(root: Path) -> None:
    path = root / os.fsdecode(b"\xbb\xf3\xc7\xb0.jpg")  # EUC-KR
    path.write_bytes(jpeg())
    with PictureDoor(get_settings()) as door:
        assert door.fetch(path.as_uri()).data == jpeg()


def test_a_replaced_file_of_the_same_age_has_another_fingerprint(root: Path) -> None:
    with PictureDoor(get_settings()) as door:
        uri = (root / "a.jpg").as_uri()
        before = door.fingerprint(uri)
        (root / "b.jpg").write_bytes(jpeg())
        shutil.copystat(root / "a.jpg", root / "b.jpg")
        (root / "b.jpg").replace(root / "a.jpg")
        assert door.fingerprint(uri) != before


def test_a_link_that_takes_a_files_place_after_the_check_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = os.path.realpath

    def swap_after(path: str) -> str:
        found = checked(path)
        (root / "a.jpg").unlink()
        (root / "a.jpg").symlink_to(root.parent / "secret.jpg")
        return found

    with PictureDoor(get_settings()) as door:
        monkeypatch.setattr("shopvision.images.local.os.path.realpath", swap_after)
        assert refused(door, f"file://{root}/a.jpg") == "bad_address"


def test_paths_out_of_the_allowed_folder_are_refused(root: Path) -> None:
    (root / "link.jpg").symlink_to(root.parent / "secret.jpg")
    with PictureDoor(get_settings()) as door:
        for path in ("../secret.jpg", "%2e%2e/secret.jpg", "sub/../../secret.jpg", "link.jpg"):
            assert refused(door, f"file://{root}/{path}") == "outside_roots"
        assert refused(door, "file:///etc/passwd") == "outside_roots"
        assert refused(door, f"file://{root}s/a.jpg") == "outside_roots"


def test_what_is_not_an_ordinary_file(root: Path, set_environment: Callable[..., None]) -> None:
    os.mkfifo(root / "pipe.jpg")
    with PictureDoor(get_settings()) as door:
        assert refused(door, f"file://{root}/pipe.jpg") == "not_a_file"
        assert refused(door, f"file://{root}") == "not_a_file"
        assert refused(door, f"file://{root}/none.jpg") == "not_found"
        assert refused(door, f"file://{root}/a.jpg%00.png") == "bad_address"
    set_environment(SHOPVISION_IMAGE_MAX_BYTES="10")
    with PictureDoor(get_settings()) as door:
        assert refused(door, f"file://{root}/a.jpg") == "too_large_bytes"


def test_an_import_on_a_local_stack_allows_its_folder(tmp_path: Path) -> None:
    allow_image_root(get_settings(), tmp_path / "shop")
    allow_image_root(get_settings(), tmp_path / "shop" / "images")
    assert allowed_image_roots(get_settings()) == (tmp_path / "shop",)


# S3


def test_s3_objects(s3: str, s3_server: str, set_environment: Callable[..., None]) -> None:
    import boto3

    boto3.client("s3", endpoint_url=s3_server).put_object(Bucket="shop", Key="pictures/상품.jpg", Body=jpeg())
    with PictureDoor(get_settings()) as door:
        uri = "s3://shop/pictures/상품.jpg"
        picture = door.fetch(uri)
        assert picture.data == jpeg()
        assert picture.fingerprint == door.fingerprint(uri)
        assert refused(door, "s3://shop/pictures/none.jpg") == "not_found"
        assert refused(door, "s3://other/pictures/none.jpg") == "not_found"
        with pytest.raises(ItemError):
            door.fingerprint("s3://shop/none.jpg")
    set_environment(SHOPVISION_IMAGE_MAX_BYTES="10")
    with PictureDoor(get_settings()) as door:
        assert refused(door, uri) == "too_large_bytes"


@pytest.fixture
def s3_door(site: Site, set_environment: Callable[..., None]) -> Iterator[PictureDoor]:
    """A store on the test site, which can misbehave."""
    set_environment(
        SHOPVISION_S3_ENDPOINT_URL=f"http://127.0.0.1:{site.port}", SHOPVISION_IMAGE_TIMEOUT_SECONDS="2",
        AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    with PictureDoor(get_settings()) as opened:
        yield opened


def test_a_busy_store_is_asked_again(s3_door: PictureDoor, site: Site) -> None:
    def page(request: BaseHTTPRequestHandler) -> None:
        if len(site.asked) == 1:
            return answer(b"<Error><Code>SlowDown</Code></Error>", 503)(request)
        if len(site.asked) == 2:  # cut
            return answer(jpeg()[:100], Content_Length=str(len(jpeg())), ETag='"v1"')(request)
        return answer(jpeg(), ETag='"v1"')(request)

    site.pages["/shop/a.jpg"] = page
    assert s3_door.fetch("s3://shop/a.jpg").fingerprint == '"v1"'
    assert len(site.asked) == 3
    site.pages["/shop/b.jpg"] = answer(b"<Error><Code>InternalError</Code></Error>", 500)
    assert refused(s3_door, "s3://shop/b.jpg") == "unavailable"


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (answer(b"<Error><Code>AccessDenied</Code></Error>", 403), "forbidden"),
        (answer(b"", Content_Length=str(10 * 2**30), ETag='"v1"'), "too_large_bytes"),
        (lambda _: time.sleep(4), "timeout"),
    ],
    ids=["no rights", "10 GB", "silent"],
)
def test_a_store_that_misbehaves(
    s3_door: PictureDoor, site: Site, page: Callable[[BaseHTTPRequestHandler], None], code: str
) -> None:
    site.pages["/shop/a.jpg"] = page
    assert refused(s3_door, "s3://shop/a.jpg") == code
    assert len(site.asked) == 1


def test_without_credentials_the_job_fails_at_once(set_environment: Callable[..., None], tmp_path: Path) -> None:
    set_environment(
        AWS_EC2_METADATA_DISABLED="true", AWS_SHARED_CREDENTIALS_FILE=str(tmp_path), AWS_CONFIG_FILE=str(tmp_path),
        SHOPVISION_S3_ENDPOINT_URL="http://127.0.0.1:9",
    )  # fmt: skip
    with PictureDoor(get_settings()) as door, pytest.raises(JobError, match="AWS_ACCESS_KEY_ID"):
        door.fetch("s3://shop/a.jpg")
