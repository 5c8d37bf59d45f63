"""refresh_embeddings end to end, through Celery, Postgres and Redis, against other ways; and the worker's peak memory.

Same weights and files for every way, in the same run and in turns. Our rate counts from the submission of the job
until its last vector is committed.
"""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import baselines
from benchmarks.common import CORES, Deployment, Table, import_catalogue, photos, progress, write_catalogue

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

LITE0 = "EfficientNet-Lite0"
SWIN = "swin_base_patch4_window7_224"
LARGE_PIXELS = (1274, 1580)
LARGE_DIFFERENT = 200
OURS, OURS_COMPILED = "shopvision, through Celery", "shopvision, model compiled meanwhile"
COMPILED = re.compile("model (?:not )?compiled")
LIMITS = tuple(way for way in baselines.WAYS if way.startswith("model only"))


@dataclass(frozen=True)
class Case:
    """What is embedded with what.

    Attributes:
        pictures: how many; several chunks for every process of the worker.
        long: also measure after the workers have compiled the model, which they do after minutes of computing.
        ways: what ours is compared with.
    """

    model: str
    form: str
    pictures: int
    long: bool
    ways: tuple[str, ...] = tuple(baselines.WAYS)


CASES = (
    Case(LITE0, "224 px JPEGs", 2000, long=False),
    Case(LITE0, "large JPEGs", 600, long=False),
)
LARGE_MODEL_CASE = Case(SWIN, "224 px JPEGs", 256, long=True, ways=LIMITS)
QUICK_CASES = (Case(LITE0, "large JPEGs", 256, long=False),)
REPETITIONS = 2
MEMORY_SIZES, QUICK_MEMORY_SIZES = (1_000, 10_000), (100, 200)
VERIFIED, QUICK_VERIFIED = 100_000, 2_000


def run(*, quick: bool) -> list[Table]:
    """The default model on small and large pictures, then memory."""
    rates = rates_of(QUICK_CASES if quick else CASES, repetitions=1 if quick else REPETITIONS)
    memory = Table(
        "Memory of a worker",
        "Peak resident memory of the largest process of a freshly started GPU-role worker after one job.",
        measure_memory(QUICK_MEMORY_SIZES if quick else MEMORY_SIZES, QUICK_VERIFIED if quick else VERIFIED),
    )
    return [rates, memory]


def rates_of(cases: Sequence[Case], repetitions: int) -> Table:
    """Every way of every case."""
    rates = Table(
        "Embedding refresh, end to end",
        "Images per second, medians of interleaved repetitions. *steady*: ours from submission to the last commit by a "
        "worker that is up; the others after their first tenth. *to index*: with publishing. *whole process*: process "
        "start, model loading and compiling included. *ratio*: our steady rate by this one; the second with the model "
        "compiled, as in long jobs.",
    )
    for case in cases:
        rates.rows += measure_case(case, repetitions)
    return rates


def measure_case(case: Case, repetitions: int) -> list[dict[str, object]]:
    """One row per way."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers() as shop:
        paths = make_pictures(Path(name, "pictures"), case.pictures, large=case.form.startswith("large"))
        import_catalogue(write_catalogue(Path(name, "items.jsonl"), paths, "picture"), Path(name, "pictures"))
        folder = _local_copy(_activate(case.model, Path(name)))
        shop.start("cpu")
        steady: dict[str, list[float]] = {}
        whole: dict[str, list[float]] = {}
        to_index: dict[str, list[float]] = {}

        def compare(way: str) -> None:
            rate = baselines.measure(way, paths, folder)
            steady.setdefault(way, []).append(rate.steady)
            whole.setdefault(way, []).append(rate.whole)
            progress(f"{case.form}, {way}: {rate.steady:.1f}")

        def ours(way: str) -> None:
            times = shop.run("refresh_embeddings", scope="all")
            steady.setdefault(way, []).append(times.items / times.to_commit)
            to_index.setdefault(way, []).append(times.items / times.to_end)
            progress(f"{case.form}, {way}: {times.items / times.to_commit:.1f}")

        started = time.time()
        shop.start("gpu")
        first = shop.run("refresh_embeddings", scope="all")
        whole[OURS] = [first.items / (first.committed - started)]
        _warm_up(shop, case)
        for _ in range(repetitions):
            for way in case.ways:
                compare(way)
            ours(OURS)
        if case.long:
            _until(lambda: len(COMPILED.findall(shop.log("gpu"))) >= len(shop.pool("gpu")), shop)
            for _ in range(repetitions):
                for way in LIMITS:
                    compare(way)
                ours(OURS_COMPILED)
    best = statistics.median(steady[OURS])
    compiled = statistics.median(steady[OURS_COMPILED]) if case.long else None
    return [
        {
            "model": case.model,
            "pictures": f"{case.pictures:,} {case.form}",
            "way": way,
            "steady": statistics.median(rates),
            "to index": statistics.median(to_index[way]) if way in to_index else None,
            "whole process": statistics.median(whole[way]) if way in whole else None,
            "ratio": best / statistics.median(rates),
            "ratio, compiled": compiled / statistics.median(rates) if compiled else None,
        }
        for way, rates in steady.items()
    ]


def _warm_up(shop: Deployment, case: Case) -> None:
    """A small job for every process of the worker, at once, so that each has loaded the model."""
    some = [f"picture-{number}" for number in range(min(64, case.pictures))]
    params = {"scope": "all", "item_ids": some, "publish": False}
    for job_id in [shop.submit("refresh_embeddings", **params) for _ in range(2 * CORES)]:
        shop.wait(job_id)


def _until(done: Callable[[], bool], shop: Deployment) -> None:
    while not done():
        shop.run("refresh_embeddings", scope="all", publish=False)


def _activate(model: str, scratch: Path) -> ModelVersionRef:
    """EfficientNet-Lite0 with its pretrained weights, or a timm architecture with seeded ones."""
    from shopvision import models
    from shopvision.models import ensure_default_encoder

    if model == LITE0:
        return ensure_default_encoder()
    import timm
    import torch

    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model(model, num_classes=10), str(scratch / "model"), safe_serialization=True)
    return models.activate("catalogue_encoder", models.import_model(f"local-dir:{scratch / 'model'}", name=model).spec)


def _local_copy(ref: ModelVersionRef) -> Path:
    from shopvision import models

    return models.local_copy(ref)


def make_pictures(folder: Path, count: int, *, large: bool) -> list[Path]:
    """Real photos, or the same enlarged to the size of an ordinary shop photo.

    Those that are embedded are repeated with other bytes, for equal ones are embedded once; the rest are hard links.
    """
    from PIL import Image

    folder.mkdir()
    sources = photos()[: LARGE_DIFFERENT if large else count]
    different = []
    for source in sources[:count]:
        path = folder / source.name
        if large:
            Image.open(source).convert("RGB").resize(LARGE_PIXELS, Image.Resampling.BICUBIC).save(path, quality=85)
        else:
            shutil.copyfile(source, path)
        different.append(path)
    return different + _repeated(different, folder, count - len(different))


def _repeated(different: Sequence[Path], folder: Path, count: int) -> list[Path]:
    made = []
    for number in range(count):
        path, source = folder / f"again-{number}.jpg", different[number % len(different)]
        if number < max(MEMORY_SIZES):
            path.write_bytes(
                source.read_bytes() + number.to_bytes(8)
            )  # beyond the picture's end, which no decoder reads
        else:
            path.hardlink_to(source)
        made.append(path)
    return made


def measure_memory(sizes: Sequence[int], verified: int) -> list[dict[str, object]]:
    """Jobs that embed everything, each on a fresh worker; then one that looks at many and finds nothing changed."""
    rows: list[dict[str, object]] = []

    def one_job(what: str, scope: str) -> None:
        shop.start("gpu")
        times = shop.run("refresh_embeddings", scope=scope, publish=False)
        rows.append({"job": what, "pictures": times.items, "peak MiB": shop.peak_mib("gpu")})
        shop.stop("gpu")
        progress(f"memory, {what}: {rows[-1]}")

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers() as shop:
        paths = make_pictures(Path(name, "pictures"), max(*sizes, verified), large=False)
        ref = _activate(LITE0, Path(name))
        shop.start("cpu")
        for size in sizes:
            import_catalogue(
                write_catalogue(Path(name, "items.jsonl"), paths[:size], "picture"), Path(name, "pictures")
            )
            one_job("embed", "all")
        import_catalogue(
            write_catalogue(Path(name, "items.jsonl"), paths[:verified], "picture"), Path(name, "pictures")
        )
        _pretend_embedded(ref)
        one_job("find unchanged", "changed")
    return rows


def _pretend_embedded(ref: ModelVersionRef) -> None:
    """Store a vector with the right fingerprint for every picture of the catalogue."""
    from sqlalchemy import select

    from shopvision.catalogue.tables import ItemImage
    from shopvision.database import connect
    from shopvision.embeddings.store import write_outcomes
    from shopvision.images import PictureDoor
    from shopvision.images.outcome import Embedded
    from shopvision.settings import get_settings

    dimension = ref.card.dimension or 0
    with PictureDoor(get_settings()) as door, connect() as connection:
        pictures = connection.execute(select(ItemImage.image_id, ItemImage.uri)).all()
        outcomes = (
            Embedded(image_id, bytes(32), door.fingerprint(uri), bytes(2 * dimension)) for image_id, uri in pictures
        )
        write_outcomes(connection, ref.model_version_id, outcomes)
