"""A site, and the picture door that can reach nothing but it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shopvision.images import PictureDoor
from shopvision.images.addresses import CheckedBackend
from shopvision.settings import get_settings
from tests.integration.images.site import Dialler, Site, resolver


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
