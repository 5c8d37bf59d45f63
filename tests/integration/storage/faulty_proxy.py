"""A proxy between us and the S3 API that answers errors, cuts connections and loses answers."""

from __future__ import annotations

import http.client
import threading
from base64 import b64encode
from collections.abc import Callable
from email.message import Message
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultyProxy:
    """Forwards to the real server, and does harm on the way.

    Attributes:
        faults: what happens to the next requests: a status code, ``drop`` (no effect), ``lost answer`` (effect, but no
            answer), ``cut`` (half the answer), ``flip`` (one bit of what is sent) or nothing.
        rule: names the fault of a request by method and path; asked where no other fault is due.
        checks_uploads: refuse a body that does not have the SHA-256 of its header, as AWS does.
        compares_quotes: refuse every If-Match, as a server does that compares the etag with its quotes.
        refuses_deletes: answer 403 to every DELETE.
        every_request_once: a fault that hits each kind of request (method and path) the first time it is made.
    """

    def __init__(self, target: str) -> None:
        self.faults: list[str] = []
        self.every_request_once = ""
        self.be_good()
        self.checks_uploads = self.compares_quotes = self.refuses_deletes = False
        self._harmed: set[tuple[str, str]] = set()
        self.requests: list[str] = []
        proxy, host = self, urlsplit(target).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_all(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.requests.append(self.command)
                fault = proxy.next_fault(self.command, self.path)
                if fault == "flip" and body:
                    body = body[:-1] + bytes([body[-1] ^ 1])
                fault = proxy.refusal(self.command, self.headers, body) or fault
                if fault.isdigit():
                    content = b"<Error><Code>BadDigest</Code></Error>" if fault == "400" else b""
                    self.send_response(int(fault))
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    return
                if fault == "drop":  # the connection is cut before the request has any effect
                    self.close_connection = True
                    return
                connection = http.client.HTTPConnection(host)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                if fault == "lost answer":
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
                self.send_header("Content-Length", str(length or 0))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
                if fault == "cut":
                    self.close_connection = True

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_all  # noqa: N815 - named by http.server

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def be_good(self) -> None:
        """No rule."""
        self.rule: Callable[[str, str], str] = lambda method, path: ""

    def next_fault(self, method: str, path: str) -> str:
        if self.every_request_once and (method, path) not in self._harmed:
            self._harmed.add((method, path))
            return self.every_request_once
        return self.faults.pop(0) if self.faults else self.rule(method, path)

    def refusal(self, method: str, headers: Message, body: bytes) -> str:
        """The status with which a server of this kind refuses the request, if it does."""
        if method == "DELETE" and self.refuses_deletes:
            return "403"
        if self.compares_quotes and headers.get("If-Match"):
            return "412"
        given = headers.get("x-amz-checksum-sha256")
        if self.checks_uploads and given and given != b64encode(sha256(body).digest()).decode():
            return "400"
        return ""

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
