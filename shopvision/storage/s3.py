"""S3 and servers that speak its API, through boto3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import stamina
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

from shopvision.errors import TransientError, UserError
from shopvision.storage.base import ObjectMissing, ObjectStat, ObjectStore, PreconditionFailed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

ATTEMPTS = 6
RETRY_SECONDS = 60.0
PART_BYTES = 64 * 2**20
MULTIPART_BYTES = 256 * 2**20  # below it a cut connection costs little to repeat, and one request has no leftovers
BLOCK_BYTES = 2**20

_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {"412", "PreconditionFailed", "ConditionalRequestConflict"}
_NO_RIGHTS = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_AGAIN = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "BadDigest"}


class S3Store(ObjectStore):
    """Objects in ``bucket`` below ``prefix``. Every upload carries its MD5, so the server refuses a damaged one."""

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
            # Servers other than AWS reject the newer trailing checksums; Content-MD5 they all verify.
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

    @override
    def put(self, key: str, data: bytes | Path, *, if_match: str | None = None, if_none_match: bool = False) -> str:
        if isinstance(data, Path) and data.stat().st_size > MULTIPART_BYTES:
            if if_match is not None or if_none_match:
                raise UserError(f"{key}: conditional writes are for small objects.")
            return self._put_parts(key, data)
        arguments: dict[str, Any] = {"Bucket": self.bucket, "Key": self.prefix + key, "ContentMD5": _md5(data)}
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

    def _put_parts(self, key: str, path: Path) -> str:
        target: dict[str, Any] = {"Bucket": self.bucket, "Key": self.prefix + key}
        upload = self._call(key, lambda: self._client.create_multipart_upload(**target)["UploadId"])
        parts: list[Any] = []
        try:
            with path.open("rb") as file:
                while block := file.read(PART_BYTES):
                    number = len(parts) + 1
                    etag = self._call(
                        key,
                        lambda block=block, number=number: self._client.upload_part(  # type: ignore[misc]  # mypy cannot type a lambda's defaults
                            **target, UploadId=upload, PartNumber=number, Body=block, ContentMD5=_md5(block)
                        )["ETag"],
                    )
                    parts.append({"ETag": etag, "PartNumber": number})
            return self._call(
                key,
                lambda: self._client.complete_multipart_upload(
                    **target, UploadId=upload, MultipartUpload={"Parts": parts}
                )["ETag"],
            )
        except BaseException:
            self._call(key, lambda: self._client.abort_multipart_upload(**target, UploadId=upload))
            raise

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
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            return UserError(f"Bucket {self.bucket!r} does not exist: create it, or correct SHOPVISION_OBJECT_STORE.")
        if code in _MISSING:
            return ObjectMissing(f"{self.url}/{key} does not exist.")
        if code in _REFUSED:
            return PreconditionFailed(f"{self.url}/{key} was written by someone else meanwhile.")
        if code in _NO_RIGHTS:
            return UserError(f"{self.url}/{key}: the credentials give no right to it ({code}).")
        if code in _AGAIN or status == 429 or (status >= 500 and status != 501):
            return TransientError(f"{self.url}/{key}: the object store answers {status} {code}.")
        return UserError(f"{self.url}/{key}: the object store answers {status} {code}: {error}")


def _md5(data: bytes | Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(data, bytes):
        digest.update(data)
    else:
        with data.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return base64.b64encode(digest.digest()).decode()
