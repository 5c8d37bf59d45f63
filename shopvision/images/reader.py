"""The one way to read many pictures: threads fetch, decode and prepare them ahead of whoever uses them.

A picture is decoded once and gives one outcome for each region that is asked for. What waits to be used is bounded in
number, what is being decoded in memory, for the whole process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from shopvision.errors import ItemError, ShopvisionError
from shopvision.images.decoding import Box, Decoded, decoding

if TYPE_CHECKING:
    from shopvision.images.door import FetchedPicture, PictureDoor

T = TypeVar("T")

# More than the cores can decode: most of them wait for a remote source most of the time.
THREADS = 8
# Pictures that are being read or wait to be used, where the user does not say how many it takes at once.
AHEAD = 64
# How long closing waits for threads; one that waits for a slow source ends by itself and hands over nothing any more.
CLOSING_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """One picture to read.

    Attributes:
        key: the caller's own.
        uri: ``file://``, ``s3://`` or ``https://``.
        known_fingerprint: mark of the source when it was last read; None if it never was.
        known_sha256: of the bytes that were last read, 32 bytes.
        regions: boxes in pixels of the upright picture at full scale; None is the whole picture.
    """

    key: int
    uri: str
    known_fingerprint: str | None = None
    known_sha256: bytes | None = None
    regions: tuple[Box, ...] | None = None


@dataclass(frozen=True, slots=True)
class ReadPicture(Generic[T]):
    """What was made of a picture.

    Attributes:
        parts: for each region in turn, or why it gives none; of the whole picture one.
        pixels: width times height of the whole picture at full scale.
    """

    key: int
    sha256: bytes
    fingerprint: str
    parts: tuple[T | ItemError, ...]
    pixels: int


@dataclass(frozen=True, slots=True)
class KnownPicture:
    """The known mark, and the bytes were not even read; or another mark and the known bytes."""

    key: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class UnreadPicture:
    """This picture cannot be read."""

    key: int
    error: ItemError


@dataclass
class ReadingSeconds:
    """What reading took, of all threads together.

    Attributes:
        fetch: on the clock, from asking a source until its bytes were there.
        decode: of a processor, for decoding and preparing.
    """

    fetch: float = 0.0
    decode: float = 0.0


PictureOutcome: TypeAlias = ReadPicture[T] | KnownPicture | UnreadPicture


def whole(outcome: PictureOutcome[T]) -> T | ItemError:
    """What was made of a picture of which nothing was known and no regions were asked for."""
    if isinstance(outcome, ReadPicture):
        return outcome.parts[0]
    if isinstance(outcome, UnreadPicture):
        return outcome.error
    raise TypeError(f"Picture {outcome.key} was known before: it has no outcome of its own.")


class PictureReader(Generic[T]):
    """How pictures are read: through which door, and what is made of each.

    Attributes:
        seconds: that reading has taken.
    """

    def __init__(
        self,
        door: PictureDoor,
        prepare: Callable[[Decoded], T],
        *,
        target: tuple[int, int] | None = None,
        threads: int = THREADS,
        decoders: int | None = None,
        ahead: int = AHEAD,
    ) -> None:
        """Say how; nothing is read yet.

        Args:
            door: open for as long as pictures are read.
            prepare: makes something of a decoded picture or region, which it must not keep; called in threads.
            target: (height, width) that it shrinks them to; see ``decoding``.
            threads: that fetch, decode and prepare.
            decoders: of them, how many decode and prepare at the same time, while others wait for sources; by default
                all may.
            ahead: pictures that are being read or wait to be used, at most.
        """
        self.door, self.prepare, self.target = door, prepare, target
        self.threads, self.ahead = threads, ahead
        self.seconds = ReadingSeconds()
        self._counting = threading.Lock()
        self._decoders = threading.BoundedSemaphore(decoders or threads)

    def read(self, requests: Sequence[PictureRequest], *, in_order: bool = False) -> Reading[T]:
        """Begin; close the result, which is a context manager, to end early.

        Args:
            requests: one outcome comes for each.
            in_order: outcomes come in the order of the requests. A slow picture then keeps back those behind it,
                which are read all the same as far as ``ahead`` allows; else whatever is ready comes.
        """
        return Reading(self, requests, in_order=in_order)

    def look(self, request: PictureRequest) -> PictureOutcome[T]:
        """Read one picture, as far as that is needed. Raises what concerns more than this picture."""
        try:
            return self._look(request)
        except ItemError as error:
            return UnreadPicture(request.key, error)
        except ShopvisionError:
            raise
        except MemoryError:
            reason = ItemError("out_of_memory", f"{request.uri}: not enough memory to decode the picture.")
            return UnreadPicture(request.key, reason)
        except Exception as error:  # noqa: BLE001 - whatever a decoder trips over concerns this picture only
            reason = ItemError("decode_error", f"{request.uri}: {type(error).__name__}: {error}")
            return UnreadPicture(request.key, reason)

    def _look(self, request: PictureRequest) -> PictureOutcome[T]:
        fetched = self._fetch(request)
        if isinstance(fetched, KnownPicture):
            return fetched
        regions = request.regions or ()
        limits = self.door.limits
        with self._decoders:
            started = time.thread_time()
            try:
                with decoding(fetched.data, target=self.target, regions=regions, limits=limits) as decoded:
                    parts = self.parts(request, fetched.sha256, decoded)
            finally:
                self._count(decode=time.thread_time() - started)
        return ReadPicture(request.key, fetched.sha256, fetched.fingerprint, parts, decoded.size[0] * decoded.size[1])

    def _fetch(self, request: PictureRequest) -> FetchedPicture | KnownPicture:
        known = request.known_fingerprint
        started = time.perf_counter()
        try:
            changed = self.door.fetch(request.uri) if known is None else self.door.fetch_changed(request.uri, known)
        finally:
            self._count(fetch=time.perf_counter() - started)
        if changed is None:
            return KnownPicture(request.key, known or "")
        if known is not None and changed.sha256 == request.known_sha256:
            return KnownPicture(request.key, changed.fingerprint)
        return changed

    def _count(self, *, fetch: float = 0.0, decode: float = 0.0) -> None:
        with self._counting:
            self.seconds.fetch += fetch
            self.seconds.decode += decode

    def parts(self, request: PictureRequest, sha256: bytes, decoded: Decoded) -> tuple[T | ItemError, ...]:  # noqa: ARG002 - for those who make different things of different bytes
        """What is made of a picture: of the whole, or of each region that was asked for. Called in threads."""
        if request.regions is None:
            return (self.prepare(decoded),)
        return tuple(self._part(decoded, box) for box in request.regions)

    def _part(self, decoded: Decoded, box: Box) -> T | ItemError:
        try:
            return self.prepare(decoded.region(box))
        except ItemError as error:
            return error


class Reading(Generic[T]):
    """Pictures on their way. One thread takes them."""

    def __init__(self, reader: PictureReader[T], requests: Sequence[PictureRequest], *, in_order: bool) -> None:
        """Start the threads."""
        self._reader, self._requests, self._in_order = reader, requests, in_order
        self._lock = threading.Lock()
        self._room, self._filled = threading.Condition(self._lock), threading.Condition(self._lock)
        self._begun = self._given = 0
        self._ready: dict[int, PictureOutcome[T] | ShopvisionError] = {}  # by place, in the order of completion
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"pictures-{number}", daemon=True)
            for number in range(min(reader.threads, len(requests)))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def missing(self) -> int:
        """Outcomes that are still to be taken."""
        return len(self._requests) - self._given

    @property
    def are_all_begun(self) -> bool:
        """Whether no picture waits any more to be read."""
        return self._begun == len(self._requests)

    def take(self, timeout: float | None = None) -> PictureOutcome[T] | None:
        """The next outcome; None where there is none within ``timeout`` seconds, or at all.

        Raises:
            TransientError: a source is away for the moment; outcomes already given out stay valid.
            JobError: there are no credentials for S3.
        """
        if not self.missing:
            return None
        with self._lock:
            if not self._filled.wait_for(self._has_next, timeout):
                return None
            place = self._given if self._in_order else next(iter(self._ready))
            outcome = self._ready.pop(place)
            self._given += 1
            self._room.notify()
        if isinstance(outcome, ShopvisionError):
            raise outcome
        return outcome

    def take_many(self, most: int, seconds: float) -> list[PictureOutcome[T]]:
        """What comes within some seconds, perhaps nothing, but no more than so many outcomes."""
        outcomes: list[PictureOutcome[T]] = []
        deadline = time.monotonic() + seconds
        while len(outcomes) < most and (outcome := self.take(max(0.0, deadline - time.monotonic()))) is not None:
            outcomes.append(outcome)
        return outcomes

    def _has_next(self) -> bool:
        return self._given in self._ready if self._in_order else bool(self._ready)

    def _run(self) -> None:
        while (place := self._begin()) is not None:
            outcome: PictureOutcome[T] | ShopvisionError
            try:
                outcome = self._reader.look(self._requests[place])
            except ShopvisionError as error:
                outcome = error
            with self._lock:
                if not self._closed:
                    self._ready[place] = outcome
                    self._filled.notify()

    def _begin(self) -> int | None:
        """The place of the next request, once there is room for its outcome; None at the end."""
        with self._lock:
            while not self._closed and self._begun < len(self._requests):
                if self._begun - self._given < self._reader.ahead:
                    self._begun += 1
                    return self._begun - 1
                self._room.wait()
            return None

    def close(self) -> None:
        """Stop reading."""
        with self._lock:
            self._closed = True
            self._ready.clear()
            self._room.notify_all()
        deadline = time.monotonic() + CLOSING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __iter__(self) -> Iterator[PictureOutcome[T]]:
        while (outcome := self.take()) is not None:
            yield outcome

    def __enter__(self) -> Reading[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
