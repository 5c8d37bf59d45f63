"""Batches of like length under a token budget, and the threads that work on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Measured on a CPU with bfloat16 units: half or twice as many tokens at once are no faster. A GPU has thousands of
# units to keep busy.
TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32_768}
# On a GPU the model runs one batch at a time, while other threads pack the next ones and fetch results.
_GPU_THREADS = 3

ShouldStop: TypeAlias = Callable[[], bool]


def token_batches(lengths: NDArray[np.int64], budget: int, threads: int = 1) -> Iterator[NDArray[np.int64]]:
    """Rows in batches of like length, the longest first, so that little of a batch is padding.

    Args:
        lengths: (n,) tokens of each row.
        budget: most tokens of a batch, padding included; a longer row is a batch of its own.
        threads: work for fewer batches than this is cut finer, so that every thread has some.

    Yields:
        (m,) rows; every row once.
    """
    order = np.argsort(-lengths, kind="stable")
    budget = min(budget, -(-int(lengths.sum()) // threads))
    start = 0
    while start < len(order):
        end = start + max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start:end]
        start = end


def thread_count(device: torch.device) -> int:
    """How many threads should run a model at once.

    On a CPU one for every thread that torch may use here: replicas of one thread never wait for one another at the end
    of every layer, as the threads of a single replica do.
    """
    return torch.get_num_threads() if device.type == "cpu" else _GPU_THREADS


def run_batches(
    batches: Iterable[NDArray[np.int64]],
    work: Callable[[NDArray[np.int64]], None],
    device: torch.device,
    should_stop: ShouldStop | None = None,
) -> None:
    """Call ``work`` with every batch, in ``thread_count`` threads.

    Args:
        batches: taken in this thread, a few ahead of the work.
        work: called in inference mode; calls run at the same time.
        device: on a CPU each of several threads computes with one torch thread.
        should_stop: asked in this thread before every batch; the batches begun by then are finished.
    """
    threads = thread_count(device)
    if threads == 1:
        with torch.inference_mode():
            for batch in batches:
                if should_stop is not None and should_stop():
                    return
                work(batch)
        return
    inference = torch.inference_mode()(work)  # the mode belongs to a thread
    cpu = device.type == "cpu"
    pool = ThreadPoolExecutor(threads, "pairs", initializer=partial(torch.set_num_threads, 1) if cpu else None)
    begun: deque[Future[None]] = deque()
    try:
        for batch in batches:
            if len(begun) == 2 * threads:
                begun.popleft().result()
            if should_stop is not None and should_stop():
                break
            begun.append(pool.submit(inference, batch))
        for one in begun:
            one.result()
    finally:
        pool.shutdown(cancel_futures=True)
        if cpu:
            # The number belongs to a thread, but torch gives new threads the one that was set last.
            torch.set_num_threads(threads)
