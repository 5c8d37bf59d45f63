"""A job of 2,000 pictures for a worker that was just started, against the same job once it is up.

What is compiled ahead of time and what was measured of the machine are there, as after ``shopvision models warm``.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import Table
from benchmarks.embedding_refresh import CASE, QUICK_CASE, REPETITIONS, refreshed
from benchmarks.goals import NO_GOAL, at_most

TIMES, START_SECONDS = 1.3, 10.0


def run(*, quick: bool) -> list[Table]:
    """The worker that is up, then fresh ones."""
    case = QUICK_CASE if quick else CASE
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, refreshed(case, Path(name)) as shop:
        deployment = shop.deployment
        steady = min(deployment.run("refresh_embeddings", scope="all").to_end for _ in range(REPETITIONS))
        fresh = []
        for _ in range(REPETITIONS):
            deployment.stop("gpu")
            started = time.time()
            job = deployment.submit("refresh_embeddings", scope="all")
            deployment.start("gpu")
            times = deployment.wait(job)
            fresh.append(times.finished - started)
    longest = TIMES * steady + START_SECONDS
    note = (
        "Seconds from the submission of a job until its vectors are in the index; the fresh worker starts at that "
        f"moment. The goal is {TIMES} times the time of the worker that is up, and {START_SECONDS:g} s."
    )
    what = f"{case.pictures:,} {case.form}"
    rows = [
        {"pictures": what, "worker": "up", "seconds": steady, **NO_GOAL},
        {"pictures": what, "worker": "fresh, slower of two", "seconds": max(fresh), **at_most(longest, max(fresh))},
    ]
    return [Table("A job in a fresh worker", note, rows)]
