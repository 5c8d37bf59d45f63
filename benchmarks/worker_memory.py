"""The memory of workers that embed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import Deployment, Table, import_catalogue, progress, write_catalogue
from benchmarks.embedding_refresh import LITE0, activate
from benchmarks.refresh_pictures import make_pictures

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

SIZES, QUICK_SIZES = (1_000, 10_000), (100, 200)
VERIFIED, QUICK_VERIFIED = 100_000, 2_000


def run(*, quick: bool) -> list[Table]:
    """Jobs of several sizes."""
    note = "Peak resident memory of the largest process of a freshly started GPU-role worker after one job."
    sizes, verified = (QUICK_SIZES, QUICK_VERIFIED) if quick else (SIZES, VERIFIED)
    return [Table("Memory of a worker", note, measure_memory(sizes, verified))]


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
        ref = activate(LITE0, Path(name))
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
