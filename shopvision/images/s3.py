"""Pictures from S3 and servers that speak its API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from shopvision.errors import ItemError, JobError
from shopvision.images.transfer import RETRIED_STATUSES, AnotherTry, check_length, patiently, read_within, retry_after
from shopvision.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

READ_BYTES = 2**16
_making_a_client = threading.Lock()


class S3Pictures:
    """``s3://bucket/key``, where the key stands as it is, without escapes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fetch(self, uri: str) -> tuple[bytes, str]:
        """One object's bytes and its ETag.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
            JobError: there are no credentials.
        """

        def get(client: S3Client, bucket: str, key: str, deadline: float) -> tuple[bytes, str]:
            answer = client.get_object(Bucket=bucket, Key=key)
            try:
                check_length(self._settings, answer["ContentLength"], uri)
                parts = answer["Body"].iter_chunks(READ_BYTES)
                data = read_within(self._settings, parts, uri, deadline, encoding=answer.get("ContentEncoding"))
            finally:
                answer["Body"].close()
            return data, answer["ETag"]

        return self._ask(uri, get)

    def mark(self, uri: str) -> str:
        """The ETag of one object. Raises what ``fetch`` raises."""
        return self._ask(uri, lambda client, bucket, key, _: client.head_object(Bucket=bucket, Key=key)["ETag"])

    def _ask(self, uri: str, request: Callable[[S3Client, str, str, float], T]) -> T:
        bucket, _, key = uri[len("s3://") :].partition("/")
        if not bucket or not key:
            raise ItemError("bad_address", f"{uri} is not of the form s3://bucket/key.")
        client = _client(self._settings.s3_endpoint_url, self._settings.image_timeout_seconds)
        deadline = time.monotonic() + self._settings.image_timeout_seconds

        def attempt() -> T:
            with _errors(uri):
                return request(client, bucket, key, deadline)

        return patiently(uri, deadline, attempt)


def _client(endpoint: str | None, seconds: float) -> S3Client:
    """One client per process: it is thread-safe, and making one costs as much as fetching many pictures."""
    with _making_a_client:  # which is not thread-safe
        return _make_client(endpoint, seconds)


@lru_cache(maxsize=4)
def _make_client(endpoint: str | None, seconds: float) -> S3Client:
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=min(5.0, seconds),
        read_timeout=seconds,
        retries={"total_max_attempts": 1},  # `patiently` tries again, also after a body that was cut
        max_pool_connections=64,
    )
    return Session().client("s3", endpoint_url=endpoint, config=config)


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        answer = error.response.get("ResponseMetadata", {})
        status = int(answer.get("HTTPStatusCode", 0))
        if code in {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}:
            raise ItemError("not_found", f"There is no object {uri}.") from None
        if status in {401, 403}:
            raise ItemError("forbidden", f"The object store refuses {uri} ({code}).") from None
        if status in RETRIED_STATUSES:
            after = retry_after(answer.get("HTTPHeaders", {}).get("retry-after"))
            raise AnotherTry(f"the object store answered {status} {code}", after=after) from None
        raise ItemError("http_error", f"{uri}: the object store answered {status} {code}.") from None
    except exceptions.ParamValidationError:
        raise ItemError("bad_address", f"{uri} is not of the form s3://bucket/key.") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise JobError(
            "There are no credentials for s3:// pictures: set AWS_ACCESS_KEY_ID or give the worker a role."
        ) from None
    except (exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError):
        raise ItemError("timeout", f"{uri} did not arrive in time.") from None
    except (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError) as error:
        raise AnotherTry(str(error)) from None
    except exceptions.BotoCoreError as error:
        raise ItemError("unavailable", f"{uri}: {' '.join(str(error).split())}") from None
