"""Fetching pictures from local folders, S3 and https, each within limits of size and time."""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from shopvision.errors import ItemError, JobError
from shopvision.images.decoding import PictureLimits
from shopvision.images.roots import allowed_image_roots
from shopvision.images.web import WebPictures, check_length, read_within, scheme_of
from shopvision.settings import Settings

ATTEMPTS = 3
READ_BYTES = 2**20


@dataclass(frozen=True)
class FetchedPicture:
    """A picture's bytes, their sha256, and the cheap mark its source had when they were read."""

    data: bytes
    sha256: bytes
    fingerprint: str


class PictureDoor:
    """Fetches pictures by address. Threads may share one; it is a context manager that closes its connections."""

    def __init__(
        self, settings: Settings, *, network: Any | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """Open the door.

        Args:
            settings: limits, allowed folders, S3 endpoint.
            network: an ``httpcore.NetworkBackend`` instead of the one that checks addresses.
            ssl_context: instead of the usual certificate authorities.
        """
        self.limits = PictureLimits.of(settings)
        self._settings = settings
        self._roots = allowed_image_roots(settings)
        self._web = WebPictures(settings, network=network, ssl_context=ssl_context)

    def fingerprint(self, uri: str) -> str:
        """A cheap mark of the source that changes when the picture does, without reading the picture.

        Files: size, modification time and inode. S3: ETag. https: ETag or modification time and length; a server that
        sends neither gets a mark that is never equal to a former one.

        Raises:
            ItemError: the picture is not there, or must not be read.
        """
        scheme = scheme_of(uri, self._settings)
        if scheme == "file":
            return _file_mark(self._stat(self._path(uri)))
        if scheme == "s3":
            bucket, key = _bucket_and_key(uri)
            with _s3_errors(uri):
                head = _s3_client(self._settings.s3_endpoint_url).head_object(Bucket=bucket, Key=key)
            return str(head["ETag"])
        return self._web.ask("HEAD", uri)[1]

    def fetch(self, uri: str) -> FetchedPicture:
        """The picture's bytes.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        scheme = scheme_of(uri, self._settings)
        if scheme == "file":
            data, fingerprint = self._read_file(self._path(uri))
        elif scheme == "s3":
            data, fingerprint = self._read_s3(uri)
        else:
            data, fingerprint = self._web.ask("GET", uri)
        return FetchedPicture(data, hashlib.sha256(data).digest(), fingerprint)

    def __enter__(self) -> PictureDoor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._web.close()

    # Local files

    def _path(self, uri: str) -> Path:
        parts = urlsplit(uri)
        if parts.netloc not in {"", "localhost"}:
            raise ItemError("bad_address", f"{uri}: a file address has three slashes, file:///folder/picture.jpg.")
        if "%00" in parts.path or "\0" in parts.path:
            raise ItemError("bad_address", f"{uri!r}: the path holds a NUL character.")
        # '?' and '#' are ordinary characters of a file name
        raw = uri[len("file://") + len(parts.netloc) :]
        path = Path(os.path.realpath(unquote(raw)))
        if not any(path.is_relative_to(root) for root in self._roots):
            raise ItemError(
                "outside_roots", f"{path} is outside the allowed folders: add its folder to SHOPVISION_IMAGE_ROOTS."
            )
        return path

    @staticmethod
    def _stat(path: Path) -> os.stat_result:
        with _file_errors(path):
            found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ItemError("not_a_file", f"{path} is not an ordinary file.")
        return found

    def _read_file(self, path: Path) -> tuple[bytes, str]:
        found = self._stat(path)
        check_length(self._settings, found.st_size, path)
        with _file_errors(path):
            data = path.read_bytes()
        return data, _file_mark(found)

    # S3

    def _read_s3(self, uri: str) -> tuple[bytes, str]:
        bucket, key = _bucket_and_key(uri)
        with _s3_errors(uri):
            answer = _s3_client(self._settings.s3_endpoint_url).get_object(Bucket=bucket, Key=key)
            try:
                check_length(self._settings, answer["ContentLength"], uri)
                parts = answer["Body"].iter_chunks(READ_BYTES)
                data = read_within(self._settings, parts, uri, time.monotonic() + self._settings.image_timeout_seconds)
            finally:
                answer["Body"].close()
        return data, str(answer["ETag"])


def _file_mark(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ItemError("not_found", f"There is no file {path}.") from None
    except PermissionError:
        raise ItemError("forbidden", f"The worker may not read {path}.") from None
    except OSError as error:
        raise ItemError("unavailable", f"{path}: {error.strerror}.") from None


@lru_cache(maxsize=4)
def _s3_client(endpoint: str | None) -> Any:
    """One client per process: it is thread-safe, and making one costs as much as fetching many pictures."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=64,
        ),
    )


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not bucket or not key:
        raise ItemError("bad_address", f"{uri} is not of the form s3://bucket/key.")
    return bucket, key


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}:
            raise ItemError("not_found", f"There is no object {uri}.") from None
        if status in {401, 403}:
            raise ItemError("forbidden", f"The object store refuses {uri} ({code}).") from None
        raise ItemError("unavailable", f"{uri}: the object store answered {status} {code}.") from None
    except exceptions.ParamValidationError:
        raise ItemError("bad_address", f"{uri} is not of the form s3://bucket/key.") from None
    except exceptions.NoCredentialsError:
        raise JobError(
            "There are no credentials for s3:// pictures: set AWS_ACCESS_KEY_ID or give the worker a role."
        ) from None
    except (exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError):
        raise ItemError("timeout", f"{uri} did not arrive in time.") from None
    except exceptions.BotoCoreError as error:
        raise ItemError("unavailable", f"{uri}: {error}") from None
