"""What the engine costs per item: a job whose items need no work, against one plain Celery task per item.

Both run on the same Redis, by the same worker with the same settings: late acknowledgement, prefetch of 1.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.common import Deployment, Table, progress

ITEMS, QUICK_ITEMS = 100_000, 5_000
PLAIN_ITEMS, QUICK_PLAIN_ITEMS = 10_000, 500
REPETITIONS = 3
QUEUE = "gpu.embed"
KIND_MODULES = "tasks,tests.acceptance.kinds,benchmarks.plain_task"


def run(*, quick: bool) -> list[Table]:
    """Both ways in turns."""
    items, plain_items = (QUICK_ITEMS, QUICK_PLAIN_ITEMS) if quick else (ITEMS, PLAIN_ITEMS)
    table = Table(
        "Engine overhead",
        "Items without work per second, from submission until all are done; the plain tasks are sent by one process "
        "while the worker already takes them.",
    )
    engine: list[float] = []
    plain: list[float] = []
    variables = {"SHOPVISION_KIND_MODULES": KIND_MODULES}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        Deployment(Path(name), **variables).servers() as shop,
    ):
        shop.start("cpu")
        shop.start("gpu")
        shop.run("noop", items=1000)  # both workers are up
        for _ in range(1 if quick else REPETITIONS):
            times = shop.run("noop", items=items)
            engine.append(items / times.to_end)
            progress(f"engine: {engine[-1]:.0f} items/s")
            plain.append(plain_items / plain_seconds(plain_items))
            progress(f"one task per item: {plain[-1]:.0f} items/s")
    ours, theirs = statistics.median(engine), statistics.median(plain)
    table.rows = [
        {"way": "job in the ledger, chunks of 1,000", "items": items, "items/s": ours, "ratio": 1.0},
        {"way": "one Celery task per item", "items": plain_items, "items/s": theirs, "ratio": ours / theirs},
    ]
    return [table]


def plain_seconds(items: int) -> float:
    """Send one task per item and wait until the last one is acknowledged."""
    import redis

    from benchmarks.plain_task import nothing
    from shopvision.settings import get_settings

    address = get_settings().broker_url
    assert address is not None
    started = time.perf_counter()
    for number in range(items):
        nothing.apply_async((number,), queue=QUEUE)
    with redis.Redis.from_url(address.get_secret_value()) as client:
        # Acknowledged late: a task leaves `unacked` when it is done.
        while client.llen(QUEUE) or client.hlen("unacked"):
            time.sleep(0.02)
    return time.perf_counter() - started
