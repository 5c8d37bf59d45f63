"""Preparing batches in the background, so that decoding and the model work at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Batch = TypeVar("Batch")


def prefetch(load: Callable[[Item], Batch], items: Iterable[Item], ahead: int = 2) -> Iterator[Batch]:
    """``load`` of every item, in order, up to ``ahead`` batches before they are asked for; at most these are in memory.

    Raises:
        Whatever ``load`` raises, when its batch is due.
    """
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, "prefetch") as thread:
        try:
            for item in items:
                waiting.append(thread.submit(load, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
