"""A million equal pairs into groups: in memory, and as the end of a job in Postgres."""

from __future__ import annotations

import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import Deployment, Table, peak_mib, progress

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAIRS, QUICK_PAIRS = 1_000_000, 2_000
CHANGED = 0.01

# Pairs of neighbours in rings of five items; one pair in a hundred joins two rings, one ring in fifty holds two items
# that differ.
_ITEMS = """
INSERT INTO items (item_id, title, content_hash)
SELECT 'item-' || number, 'title', '' FROM generate_series(0, :items - 1) number
"""
_RINGS = """
SELECT 'item-' || number AS one,
       'item-' || CASE WHEN number % 100 = 99 THEN (number + 3) % :items
                       WHEN number % 5 = 4 THEN number - 4 ELSE number + 1 END AS other,
       'same' AS verdict, 0.9 + 0.1 * random() AS probability
FROM generate_series(0, :items - 1) number
UNION ALL
SELECT 'item-' || number, 'item-' || number + 2, 'different', 0.01 FROM generate_series(0, :items - 5, 250) number
"""
_SCORES = f"""
INSERT INTO pair_scores (left_item_id, right_item_id, model_version_id, probability, verdict, input_hash, job_id)
SELECT least(one COLLATE "C", other COLLATE "C"), greatest(one COLLATE "C", other COLLATE "C"), :version, probability,
       verdict, '', :job_id
FROM ({_RINGS}) pairs ON CONFLICT DO NOTHING
"""


def run(*, quick: bool) -> list[Table]:
    """Seconds and memory."""
    pairs = QUICK_PAIRS if quick else PAIRS
    in_memory = Table(
        "Grouping in memory",
        "Random equal pairs between so many items, as many random pairs that differ, groups of at most 50. With as "
        "many items as pairs nearly all of them are one component that has to be cut, which no real catalogue is. "
        "*CPU s*: of one core. *MiB*: by which the peak memory of the process rose.",
    )
    for items in (3 * pairs, pairs):
        in_memory.rows.append(_in_memory(items, pairs))
        progress(str(in_memory.rows[-1]))
    in_postgres = Table(
        "Grouping in Postgres",
        "The last step of `score_pairs`: reading, grouping and writing. *MiB*: as above.",
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers():
        in_postgres.rows = _in_postgres(pairs)
    return [in_memory, in_postgres]


def _in_memory(items: int, pairs: int) -> dict[str, object]:
    from shopvision.matching.groups.components import DifferentEdges, SameEdges, connected_items, group_items

    generator = np.random.default_rng(items)
    ends = generator.integers(0, items, (4, pairs)).astype(np.int32)
    same = SameEdges(ends[0], ends[1], generator.random(pairs, np.float32), np.zeros(pairs, bool))
    different = DifferentEdges(ends[2], ends[3], np.zeros(pairs, bool))
    before, started = peak_mib(), time.process_time()
    found = group_items(connected_items(items, same), same, different, 50)
    return {
        "equal pairs": pairs,
        "items": items,
        "groups": found.count,
        "conflicts": len(found.refused),
        "CPU s": time.process_time() - started,
        "MiB": peak_mib() - before,
    }


def _in_postgres(pairs: int) -> list[dict[str, object]]:
    from sqlalchemy import insert, text

    from shopvision.database import connect
    from shopvision.matching.groups.group_update import update_groups
    from shopvision.models.tables import ModelVersion

    job_id = uuid.uuid4()
    with connect() as connection:
        version = connection.scalar(
            insert(ModelVersion).values(name="benchmark", tag="1", card={}).returning(ModelVersion.model_version_id)
        )
        connection.execute(text(_ITEMS), {"items": pairs})
        connection.execute(text(_SCORES), {"items": pairs, "version": version, "job_id": job_id})
    with connect() as connection:
        connection.exec_driver_sql("ANALYZE items, pair_scores")
    rows: list[dict[str, object]] = []
    for name in ("first time", "nothing new", f"{CHANGED:.0%} of the pairs gone"):
        if name not in {"first time", "nothing new"}:
            with connect() as connection:
                _forget_some(connection)
        before, started = peak_mib(), time.perf_counter()
        counts = update_groups(int(version or 0), job_id)
        seconds = time.perf_counter() - started
        rows.append({"run": name, "equal pairs": pairs, **counts, "s": seconds, "MiB": peak_mib() - before})
        progress(str(rows[-1]))
    return rows


def _forget_some(connection: Connection) -> None:
    from sqlalchemy import text

    connection.execute(
        text("DELETE FROM pair_scores WHERE verdict = 'same' AND hashtext(left_item_id) % :every = 0"),
        {"every": round(1 / CHANGED)},
    )
