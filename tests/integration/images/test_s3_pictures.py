"""Pictures in object storage."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from shopvision.errors import ItemError, JobError
from shopvision.images import PictureDoor
from shopvision.settings import get_settings
from tests.integration.images.site import Site, answer, asking_for_a_second, jpeg, refused, silent


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


def test_an_object_that_was_stored_compressed_once_more(s3_door: PictureDoor, site: Site) -> None:
    site.pages["/shop/a.jpg"] = answer(gzip.compress(jpeg()), Content_Encoding="gzip", ETag='"v1"')
    assert s3_door.fetch("s3://shop/a.jpg").data == jpeg()


def test_a_store_that_asks_for_time_gets_it(s3_door: PictureDoor, site: Site) -> None:
    site.pages["/shop/a.jpg"] = asking_for_a_second(503, answer(jpeg(), ETag='"v1"'))
    assert s3_door.fetch("s3://shop/a.jpg").data == jpeg()
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (answer(b"<Error><Code>AccessDenied</Code></Error>", 403), "forbidden"),
        (answer(b"", Content_Length=str(10 * 2**30), ETag='"v1"'), "too_large_bytes"),
        (silent, "timeout"),
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
