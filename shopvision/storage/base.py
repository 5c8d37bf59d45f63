"""What every object store can do, and how it says no."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from shopvision.errors import ShopvisionError, UserError

log = structlog.get_logger(__name__)


class ObjectMissing(ShopvisionError):  # noqa: N818 - reads as the fact it states
    """There is no object with this key."""


class PreconditionFailed(ShopvisionError):  # noqa: N818 - S3's own name for it
    """A conditional write was refused: the object is not, or no longer, what the writer took it for."""


@dataclass(frozen=True)
class ObjectStat:
    """One object without its content.

    Attributes:
        key: relative to the store's prefix.
        size: bytes.
        etag: changes whenever the object is written; comparable only with etags of the same store.
        modified: time of the last write, with time zone.
    """

    key: str
    size: int
    etag: str
    modified: datetime


class ObjectStore(ABC):
    """Objects under keys like ``indexes/catalogue/current``, relative to the prefix in ``url``.

    Every method raises ``TransientError`` where the store is away for the moment (after retries) and ``UserError``
    where the bucket does not exist or the rights are missing.
    """

    url: str
    _honours: bool | None = None

    @abstractmethod
    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """Content and etag of one object, read together. Raises ``ObjectMissing``."""

    @abstractmethod
    def put(
        self,
        key: str,
        data: bytes | Path,
        *,
        sha256: str | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """Write one object whole or not at all, make sure that it arrived as it is, and return its new etag.

        Args:
            data: the content, or a local file that holds it.
            sha256: hexadecimal digest that the object must have; by default that of ``data``.
            if_match: write only if the object still has this etag.
            if_none_match: write only if there is no such object.

        Raises:
            PreconditionFailed: the condition does not hold; nothing was written.
            TransientError: the store holds something else than was sent, time and again.
        """

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Write the object's content to ``path``, complete or with an error. Raises ``ObjectMissing``."""

    @abstractmethod
    def stat(self, key: str) -> ObjectStat:
        """Size, etag and time of one object. Raises ``ObjectMissing``."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Every object whose key begins with ``prefix``."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is missing already is no error."""

    def get(self, key: str) -> bytes:
        """Content of one object. Raises ``ObjectMissing``."""
        return self.get_with_etag(key)[0]

    def close(self) -> None:  # noqa: B027 - a store that holds nothing open has nothing to do
        """Close what is open. The store may still be used: it opens anew."""

    def honours_conditional_writes(self) -> bool:
        """Whether ``if_match`` and ``if_none_match`` refuse what they must, and nothing else. Tried out once per store.

        Some S3-compatible servers ignore the conditions and write, others refuse the right etag too: that counts as no.
        """
        if self._honours is None:
            reason = self._probe_conditions()
            self._honours = reason is None
            if reason is not None:
                log.warning("conditional writes are of no use; the database lock alone guards", store=self.url,
                            reason=reason)  # fmt: skip
        return self._honours

    def _probe_conditions(self) -> str | None:
        """What is wrong with conditional writes here; ``None`` where they work."""
        with self._probe_object("conditional-write") as key:
            try:
                etag = self.put(key, b"first")
            except UserError as error:
                return str(error)
            for condition in ({"if_none_match": True}, {"if_match": '"00000000000000000000000000000000"'}):
                try:
                    self.put(key, b"second", **condition)
                except PreconditionFailed:
                    continue
                except UserError:  # "not implemented": some servers refuse the header itself
                    return "conditions are refused as such"
                return "conditions are ignored"
            try:
                self.put(key, b"third", if_match=etag)
            except PreconditionFailed:
                # A repeated request is refused where the first one succeeded and only its answer was lost.
                if self.get(key) != b"third":
                    return "the right etag is refused"
            return None

    @contextmanager
    def _probe_object(self, purpose: str) -> Iterator[str]:
        """A key of its own to try something out on; where the store refuses to delete, the object stays."""
        key = f"probes/{purpose}-{uuid.uuid4().hex}"
        yield key
        try:
            self.delete([key])
        except UserError as error:
            log.warning("a probe object stays", store=self.url, key=key, reason=str(error))
