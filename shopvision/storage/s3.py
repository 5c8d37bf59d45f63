"""S3 and servers that speak its API, through boto3."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import stamina
import structlog
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as NoConnection,
)
from typing_extensions import override

from shopvision.errors import ShopvisionError, TransientError, UserError
from shopvision.storage.base import ObjectMissing, ObjectStat, ObjectStore, PreconditionFailed
from shopvision.storage.digests import sha256_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
log = structlog.get_logger(__name__)

ATTEMPTS = 6
RETRY_SECONDS = 60.0
PART_BYTES = 64 * 2**20
MULTIPART_BYTES = 256 * 2**20  # below it a cut connection costs little to repeat, and one request has no leftovers
BLOCK_BYTES = 2**20

_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {"412", "PreconditionFailed", "ConditionalRequestConflict"}
_NO_RIGHTS = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_AGAIN = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}
_DAMAGED = {"BadDigest", "XAmzContentChecksumMismatch"}


class _DamagedUploadError(TransientError):
    """What the store holds is not what was sent."""


class S3Store(ObjectStore):
    """Objects in ``bucket`` below ``prefix``.

    Every upload carries its SHA-256. A server that checks it refuses a damaged one; from any other, what it holds is
    read again and compared.
    """

    def __init__(self, bucket: str, prefix: str, *, endpoint_url: str | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.endpoint_url = endpoint_url
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")

    @cached_property
    def _client(self) -> S3Client:
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"total_max_attempts": 1},  # one place retries: _call, which also repeats a cut download
            # Servers other than AWS reject the newer trailing checksums; ours go into a header, where they are checked.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return Session().client("s3", endpoint_url=self.endpoint_url, config=config)

    @override
    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        def read() -> tuple[bytes, str]:
            answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            return answer["Body"].read(), answer["ETag"]

        return self._call(key, read)

    @cached_property
    def _checks_uploads(self) -> bool:
        """Whether the server computes the SHA-256 of what arrives and refuses what differs. Tried out once.

        Many compatible servers ignore the header, and some repeat it in their answers without having looked.
        """

        def accepts(key: str, digest: str) -> bool:
            try:
                self._client.put_object(
                    Bucket=self.bucket, Key=self.prefix + key, Body=b"probe", ChecksumSHA256=_base64(digest)
                )
            except ClientError as error:
                if _status(error) not in {400, 501}:
                    raise
                return False
            return True

        right, wrong = sha256_of(b"probe"), sha256_of(b"another")
        checks = False
        with contextlib.suppress(UserError), self._probe_object("checksum") as key:  # no right to write there
            checks = self._call(key, lambda: accepts(key, right)) and not self._call(key, lambda: accepts(key, wrong))
        if not checks:
            log.info("store does not check uploads; they are read again", store=self.url)
        return checks

    @override
    def put(
        self,
        key: str,
        data: bytes | Path,
        *,
        sha256: str | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        sha256 = sha256 or sha256_of(data)
        for attempt in stamina.retry_context(on=_DamagedUploadError, attempts=ATTEMPTS, timeout=RETRY_SECONDS):
            with attempt:
                etag = self._put(key, data, sha256, if_match, if_none_match=if_none_match)
                if not self._checks_uploads and self._read_digest(key) != sha256:
                    if if_match is not None or if_none_match:  # what stands there now is our own damaged one
                        if_match, if_none_match = etag, False
                    raise _DamagedUploadError(
                        f"{self.url}/{key} arrived damaged: its sha256 is not that of what was sent."
                    )
                return etag
        raise AssertionError("the last attempt returns or raises")

    def _put(self, key: str, data: bytes | Path, sha256: str, if_match: str | None, *, if_none_match: bool) -> str:
        if isinstance(data, Path) and data.stat().st_size > MULTIPART_BYTES:
            if if_match is not None or if_none_match:
                raise UserError(f"{key}: conditional writes are for small objects.")
            return self._put_parts(key, data, sha256)
        arguments: dict[str, Any] = {"Bucket": self.bucket, "Key": self.prefix + key, **self._checksum(sha256)}
        if if_match is not None:
            arguments["IfMatch"] = if_match
        if if_none_match:
            arguments["IfNoneMatch"] = "*"

        def write() -> str:
            if isinstance(data, bytes):
                return self._client.put_object(Body=data, **arguments)["ETag"]
            with data.open("rb") as file:
                return self._client.put_object(Body=file, **arguments)["ETag"]

        try:
            return self._call(key, write)
        except ObjectMissing:  # the answer to If-Match on a key that is gone
            raise PreconditionFailed(f"{self.url}/{key} is gone.") from None

    def _put_parts(self, key: str, path: Path, sha256: str) -> str:
        target: dict[str, Any] = {"Bucket": self.bucket, "Key": self.prefix + key}
        kind: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if self._checks_uploads else {}
        upload = self._call(key, lambda: self._client.create_multipart_upload(**target, **kind)["UploadId"])
        parts: list[Any] = []
        whole = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(PART_BYTES):
                    whole.update(block)
                    number, checksum = len(parts) + 1, self._checksum(sha256_of(block))
                    etag = self._call(
                        key,
                        lambda block=block, number=number, checksum=checksum: self._client.upload_part(  # type: ignore[misc]  # mypy cannot type a lambda's defaults
                            **target, UploadId=upload, PartNumber=number, Body=block, **checksum
                        )["ETag"],
                    )
                    parts.append({"ETag": etag, "PartNumber": number, **checksum})
            _require_digest(path, whole.hexdigest(), sha256)
            return self._call(
                key,
                lambda: self._client.complete_multipart_upload(
                    **target, UploadId=upload, MultipartUpload={"Parts": parts}
                )["ETag"],
            )
        except BaseException:
            with contextlib.suppress(ShopvisionError):
                self._call(key, lambda: self._client.abort_multipart_upload(**target, UploadId=upload))
            raise

    def _checksum(self, sha256: str) -> dict[str, str]:
        return {"ChecksumSHA256": _base64(sha256)} if self._checks_uploads else {}

    def _read_digest(self, key: str) -> str:
        def read() -> str:
            body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"]
            digest = hashlib.sha256()
            for block in body.iter_chunks(BLOCK_BYTES):
                digest.update(block)
            return digest.hexdigest()

        return self._call(key, read)

    @override
    def close(self) -> None:
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    @override
    def download(self, key: str, path: Path) -> None:
        def read() -> None:
            body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"]
            with path.open("wb") as file:
                for block in body.iter_chunks(BLOCK_BYTES):
                    file.write(block)

        self._call(key, read)

    @override
    def stat(self, key: str) -> ObjectStat:
        found = self._call(key, lambda: self._client.head_object(Bucket=self.bucket, Key=self.prefix + key))
        return ObjectStat(key, found["ContentLength"], found["ETag"], found["LastModified"])

    @override
    def list(self, prefix: str) -> Iterator[ObjectStat]:
        arguments: dict[str, Any] = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
        while True:
            page = self._call(prefix, lambda: self._client.list_objects_v2(**arguments))
            for entry in page.get("Contents", []):
                key = entry["Key"].removeprefix(self.prefix)
                yield ObjectStat(key, entry["Size"], entry["ETag"], entry["LastModified"])
            if not page["IsTruncated"]:
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    @override
    def delete(self, keys: Iterable[str]) -> None:
        # One request per key: the batch request is missing in several compatible servers.
        for key in keys:
            self._call(key, lambda key=key: self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key))  # type: ignore[misc]  # mypy cannot type a lambda's defaults

    def _call(self, key: str, request: Callable[[], T]) -> T:
        for attempt in stamina.retry_context(on=TransientError, attempts=ATTEMPTS, timeout=RETRY_SECONDS):
            with attempt:
                try:
                    return request()
                except ClientError as error:
                    raise self._explained(key, error) from None
                except NoCredentialsError:
                    raise UserError(f"{self.url}: no credentials found (AWS_ACCESS_KEY_ID ...).") from None
                except (HTTPClientError, NoConnection, IncompleteReadError) as error:
                    raise TransientError(f"{self.url}/{key}: the object store does not answer ({error}).") from None
                except BotoCoreError as error:
                    raise UserError(f"{self.url}/{key}: {error}") from None
        raise AssertionError("the last attempt returns or raises")

    def _explained(self, key: str, error: ClientError) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = _status(error)
        if code == "NoSuchBucket":
            return UserError(f"Bucket {self.bucket!r} does not exist: create it, or correct SHOPVISION_OBJECT_STORE.")
        if code in _MISSING:
            return ObjectMissing(f"{self.url}/{key} does not exist.")
        if code in _REFUSED:
            return PreconditionFailed(f"{self.url}/{key} was written by someone else meanwhile.")
        if code in _NO_RIGHTS:
            return UserError(f"{self.url}/{key}: the credentials give no right to it ({code}).")
        if code in _AGAIN | _DAMAGED or status == 429 or (status >= 500 and status != 501):
            return TransientError(f"{self.url}/{key}: the object store answers {status} {code}.")
        return UserError(f"{self.url}/{key}: the object store answers {status} {code}: {error}")


def _require_digest(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise TransientError(f"{path} changed while it was uploaded: its sha256 is not the one that was given.")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
