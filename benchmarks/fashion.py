"""Photos to vectors of their garments, end to end through Celery, against the bare models and the documented way.

Same weights, photos and crops for every way, in the same run and in turns. Our rate counts from the submission of the
job until its last vector is committed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import fashion_baselines as others
from benchmarks.common import CORES, Deployment, Table, import_catalogue, progress, write_catalogue
from benchmarks.embedding_refresh import local_copy, share_compiled, tune, warm
from benchmarks.fashion_models import LAPTOP, YOLOS, make_detector, score_of_so_many

OURS = "shopvision, through Celery"


@dataclass(frozen=True)
class Case:
    """Photos to look at with one detector: a chunk or more for every process of the worker."""

    detector: str
    photos: int
    repetitions: int


CASES = (Case(LAPTOP, 256, 2), Case(YOLOS, 128, 1))
QUICK_CASES = (Case(LAPTOP, 128, 1),)


def run(*, quick: bool) -> list[Table]:
    """Rates, and memory of the workers that gave them."""
    rates = Table(
        "Detect, crop and embed, end to end",
        "Photos of at most 512 px per second, medians of interleaved repetitions; each garment found gets a vector of "
        "EfficientNet-Lite0. *steady*: ours from submission to the last commit by a worker that is up, others after "
        "their first tenth. *ratio*: ours by this one. *both models only*: ready tensors, nothing made of what the "
        "detector gives, and as many crops as ours.",
    )
    memory = Table(
        "Memory of a worker with detector and encoder",
        "Peak resident memory of the largest process of the worker, after all jobs above.",
    )
    for case in QUICK_CASES if quick else CASES:
        measure_case(case, rates, memory, quick=quick)
    return [rates, memory]


def measure_case(case: Case, rates: Table, memory: Table, *, quick: bool) -> None:
    """One row per way, and one for the worker."""
    with deployment() as (shop, folder):
        boxes = data_folder()
        photos = sorted((boxes / "images").glob("*.jpg"))[: case.photos]
        detector = make_detector(case.detector, boxes / "train_7.json", folder, quick=quick)
        score = score_of_so_many(detector, photos)
        encoder, composed = activate_composed(detector, score)
        import_catalogue(write_catalogue(folder / "items.jsonl", photos, "photo"), boxes)
        warm()
        tune(composed)
        shop.start("cpu")
        shop.start("gpu")
        warm_up(shop, case)
        steady: dict[str, list[float]] = {}

        def note(way: str, rate: float) -> None:
            steady.setdefault(way, []).append(rate)
            progress(f"{case.detector}, {way}: {rate:.2f}")

        for _ in range(case.repetitions):
            times = shop.run("refresh_embeddings", scope="all", publish=False)
            note(OURS, times.items / times.to_commit)
            garments = vectors() / times.items
            work = others.Work(str(detector), str(encoder), score, garments)
            for way in others.WAYS:
                note(way, others.measure(way, photos, work).steady)
        memory.rows.append({"detector": case.detector, "photos": len(photos), "peak MiB": shop.peak_mib("gpu")})
    ours = statistics.median(steady[OURS])
    for way, values in steady.items():
        rate = statistics.median(values)
        row = {"detector": case.detector, "photos": len(photos), "garments": garments, "way": way}
        rates.rows.append({**row, "steady": rate, "ratio": ours / rate})


@contextmanager
def deployment() -> Iterator[tuple[Deployment, Path]]:
    """A shop without schedules in a folder of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        share_compiled(Path(name))
        with Deployment(Path(name)).servers() as shop:
            yield shop, Path(name)


def data_folder() -> Path:
    """Real street photos with boxes, from the folder of test data."""
    from tests.conftest import DATA

    folder = DATA / "fashion_boxes"
    if not folder.is_dir():
        raise SystemExit(f"No photos in {folder}: set SHOPVISION_TEST_DATA to the folder of test data.")
    return folder


def activate_composed(detector: Path, score: float) -> tuple[Path, Path]:
    """Let the detector and the default encoder serve as one; returns the folders of the encoder and of both."""
    from shopvision import models
    from shopvision.fashion.composition.policy import LEAST_SCORE, CropPolicy
    from shopvision.fashion.composition.registering import compose_version
    from shopvision.models import ensure_default_encoder

    models.import_model(f"local-dir:{detector}")
    encoder = models.local_copy(ensure_default_encoder())
    policy = CropPolicy(crop="all", score=max(LEAST_SCORE, min(score, 1.0)))
    composed = compose_version(detector, encoder, by_class={}, policy=policy, classes={}, name="composed")
    models.activate("catalogue_encoder", composed.spec, force=True)
    return encoder, local_copy(composed)


def warm_up(shop: Deployment, case: Case) -> None:
    """A small job for every process of the worker, at once, so that each has loaded the models."""
    some = [f"photo-{number}" for number in range(min(8, case.photos))]
    params: dict[str, Any] = {"scope": "all", "item_ids": some, "publish": False}
    for job_id in [shop.submit("refresh_embeddings", **params) for _ in range(2 * CORES)]:
        shop.wait(job_id)


def vectors() -> int:
    """How many the store holds."""
    from sqlalchemy import func, select

    from shopvision.database import connect
    from shopvision.index.tables import Embedding

    with connect() as connection:
        return connection.scalar(select(func.count()).select_from(Embedding)) or 0
