"""Finding pairs takes minutes and is worth nothing unless it is whole: asked to stop, it ends at its next batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from shopvision.errors import ShopvisionError

T = TypeVar("T")
ShouldStop = Callable[[], bool]


class StopAskedError(ShopvisionError):
    """What was begun is thrown away, because ``should_stop`` has said yes."""


def never() -> bool:
    """For whoever cannot be asked to stop."""
    return False


def until_stopped(parts: Iterable[T], should_stop: ShouldStop, *, every: int = 1) -> Iterator[T]:
    """The parts; asks before each, or before the first of ``every`` small ones.

    Raises:
        StopAskedError: the answer was yes.
    """
    iterator = iter(parts)
    try:
        for number, part in enumerate(iterator):
            if number % every == 0 and should_stop():
                raise StopAskedError("Looking for pairs was asked to stop.")
            yield part
    finally:
        if isinstance(iterator, Generator):
            iterator.close()  # now, while the connection that it reads from is still there
