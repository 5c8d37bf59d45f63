"""score_pairs as a job of 100,000 pairs, the whole way: a file of pairs, Celery, Postgres."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import Deployment, Table, import_catalogue, progress
from benchmarks.pair_scoring import files, save_models

ITEMS = 20_000
PAIRS, QUICK_PAIRS = 100_000, 1_000
PHOTO = {"uri": "https://shop.example/photo.jpg"}  # the catalogue wants one; nobody reads it here
CASCADE = {"low": 0.1, "high": 0.9}


def run(*, quick: bool) -> list[Table]:
    """By the cross-encoder alone, once more, and by a cascade."""
    note = (
        "Random pairs, in a file, of the same items in embedded Postgres with titles, brands and descriptions: "
        "`score_pairs` from submission until the last verdict is committed. *split*: seconds of this for reading the "
        "file. *passed on*: share of the pairs that the cross-encoder is asked about. *MiB*: peak of the largest "
        "process of the worker."
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder)
        rows = _jobs(folder, files("abt_buy.test" if quick else "*"), QUICK_PAIRS if quick else PAIRS)
    return [Table("Pair scoring as a job", note, rows)]


def _jobs(models: Path, files: Sequence[Path], pairs: int) -> list[dict[str, object]]:
    """All pairs by the cross-encoder; the same again; all anew by a cascade."""
    from shopvision.models import activate, import_model

    folder = models / "deployment"
    folder.mkdir()
    with Deployment(folder).servers() as shop:
        item_ids = _import_items(folder, files)
        listing = _write_pairs(folder / "pairs.csv", item_ids, pairs)
        for role, name in (("pair_scorer", "attributes"), ("pair_blocker", "two_tower")):
            activate(role, import_model(f"local-dir:{models / name}").spec)
        shop.start("cpu")
        shop.start("gpu")
        rows: list[dict[str, object]] = []
        for name, params in (
            ("cross-encoder", {}),
            ("cross-encoder, nothing changed", {}),
            ("cascade of two-tower and cross-encoder", {"cascade": CASCADE}),
        ):
            job = shop.submit("score_pairs", pairs_file=str(listing), group=False, **params)
            times = shop.wait(job)
            rows.append({
                "job": name, "pairs": pairs, "s": times.to_commit, "split": times.split, "pairs/s": pairs /
                times.to_commit, "passed on": _passed_on(job, pairs) if params else None, "MiB": shop.peak_mib("gpu"),
            })  # fmt: skip
            progress(str(rows[-1]))
    return rows


def _import_items(folder: Path, files: Sequence[Path]) -> list[str]:
    """Items of some files, into the catalogue; returns their ids."""
    from shopvision.items.pair_files import read_pairs

    known = {item.content_hash().hex(): item for file in files for item in read_pairs(file).items if item.title}
    chosen = dict(list(known.items())[:ITEMS])
    with (folder / "items.jsonl").open("w", encoding="utf-8") as output:
        for item_id, item in chosen.items():
            record = {"item_id": item_id, "title": item.title, "brand": item.brand, "images": [PHOTO]}
            record["description"] = item.description
            output.write(json.dumps(record) + "\n")
    import_catalogue(folder / "items.jsonl", folder)
    return list(chosen)


def _write_pairs(path: Path, item_ids: Sequence[str], count: int) -> Path:
    """Random pairs, none twice."""
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, len(item_ids), 2 * count) for _ in range(2))
    chosen = np.unique(np.stack([np.minimum(first, second), np.maximum(first, second)])[:, first != second], axis=1)
    chosen = generator.permutation(chosen, axis=1)[:, :count]
    lines = (f"{item_ids[a]},{item_ids[b]}\n" for a, b in chosen.T.tolist())
    path.write_text("left_item_id,right_item_id\n" + "".join(lines), encoding="utf-8")
    return path


def _passed_on(job_id: uuid.UUID, pairs: int) -> float:
    from worker.ledger.progress import job_progress

    return job_progress(job_id).counters["passed_on"] / pairs
