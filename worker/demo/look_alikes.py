"""The first page of the demo: what looks alike."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from worker.demo.guide import NEIGHBOURS, SHOWN

if TYPE_CHECKING:
    from worker.demo.guide import Guide

PAGE_ITEMS = 200
PAGE_NEIGHBOURS = 6


def show_look_alikes(guide: Guide, output: Path, job_id: uuid.UUID) -> None:
    """Write the page of a job that refreshed embeddings, and show some of it."""
    from shopvision.index.generation_rows import list_generations
    from shopvision.search.report import find_neighbours, write_report
    from shopvision.settings import get_settings
    from worker.ledger.progress import job_progress, list_failures

    rows = find_neighbours(limit=PAGE_ITEMS, k=PAGE_NEIGHBOURS)
    generation = next(found for found in list_generations(get_settings().index_name) if found.is_current)
    progress = job_progress(job_id)
    facts = [
        ("vectors in the index", f"{generation.live:,}"),
        ("embedded by this job", f"{progress.counters.get('embedded', 0):,}"),
        ("model", generation.model.partition(":")[0]),
    ]
    write_report(output, rows, facts=facts, failures=list_failures(job_id, limit=200))
    step = max(1, len(rows) // SHOWN)
    shown = [
        (
            row.item.title or row.item.item_id,
            ", ".join(f"{one.item.title or one.item.item_id} {one.score:.2f}" for one in row.neighbours[:NEIGHBOURS]),
        )
        for row in rows[::step][:SHOWN]
    ]
    guide.show(("item", "looks most like"), shown)
