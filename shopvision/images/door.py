"""The door: one fetch and one fingerprint for pictures wherever they live."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from shopvision.images.decoding import PictureLimits
from shopvision.images.local import LocalPictures
from shopvision.images.s3 import S3Pictures
from shopvision.images.web import WebPictures, scheme_of
from shopvision.settings import Settings

if TYPE_CHECKING:
    import httpcore


@dataclass(frozen=True)
class FetchedPicture:
    """A picture's bytes, their sha256, and the cheap mark its source had when they were read."""

    data: bytes
    sha256: bytes
    fingerprint: str


def _fetched(answer: tuple[bytes, str]) -> FetchedPicture:
    data, mark = answer
    return FetchedPicture(data, hashlib.sha256(data).digest(), mark)


class PictureDoor:
    """Fetches pictures by address. Threads may share one; it is a context manager that closes its connections."""

    def __init__(
        self,
        settings: Settings,
        *,
        network: httpcore.NetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Open the door.

        Args:
            settings: limits, allowed folders, S3 endpoint.
            network: how web servers are reached, instead of a ``CheckedBackend``.
            ssl_context: instead of the usual certificate authorities.
        """
        self.limits = PictureLimits.of(settings)
        self._settings = settings
        self._web = WebPictures(settings, network=network, ssl_context=ssl_context)
        self._sources: dict[str, LocalPictures | S3Pictures | WebPictures] = {
            "file": LocalPictures(settings),
            "s3": S3Pictures(settings),
            "https": self._web,
            "http": self._web,
        }

    def fingerprint(self, uri: str) -> str:
        """A cheap mark of the source that changes when the picture does, without reading the picture.

        Files: size, times of modification and of change, and inode. S3: ETag. https: ETag, or modification time and
        length; a server that says too little gets a mark that is never equal to a former one.

        Raises:
            ItemError: the picture is not there, or must not be read.
            JobError: there are no credentials for S3.
        """
        return self._sources[scheme_of(uri, self._settings)].mark(uri)

    def fetch(self, uri: str) -> FetchedPicture:
        """The picture's bytes.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
            JobError: there are no credentials for S3.
        """
        return _fetched(self._sources[scheme_of(uri, self._settings)].fetch(uri))

    def fetch_changed(self, uri: str, known: str) -> FetchedPicture | None:
        """The picture's bytes, or None where its source still bears the fingerprint ``known``: no bytes travel then.

        Raises:
            ItemError: see ``fetch``.
            JobError: see ``fetch``.
        """
        source = self._sources[scheme_of(uri, self._settings)]
        if source.mark(uri) == known:
            return None
        if isinstance(source, WebPictures):
            answer = source.fetch_unless(uri, known)
            return None if answer is None else _fetched(answer)
        return _fetched(source.fetch(uri))

    def __enter__(self) -> PictureDoor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._web.close()
