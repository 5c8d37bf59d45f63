"""A refresh notes what it computed in; the first publication of a mixture measures how far it agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select, text

from shopvision import models
from shopvision.catalogue import upsert_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.embeddings import precision as measuring
from shopvision.embeddings.publishing import publish_index
from shopvision.embeddings.refresh import embed_images
from shopvision.embeddings.store import vectors_of_bytes
from shopvision.errors import JobError
from shopvision.index.current import read_current, read_manifest
from shopvision.index.gate import GenerationRefused
from shopvision.index.precisions import agreements
from shopvision.index.tables import Embedding
from shopvision.storage import open_store
from tests.unit.fashion.tiny_members import save_tiny_encoder

pytestmark = pytest.mark.usefixtures("database")
COUNT = 20


@pytest.fixture
def encoder(tmp_path: Path, set_environment: Callable[..., None]) -> models.ModelVersionRef:
    """With a vector of each of 20 pictures, half of them said to be of bfloat16."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    set_environment(
        SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri(), SHOPVISION_IMAGE_ROOTS=str(pictures),
        SHOPVISION_TUNING='{"eye": {"precision": "float32"}}',
    )  # fmt: skip
    random = np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((48, 48)).save(pictures / f"{number}.png")
    ref = models.import_model(f"local-dir:{save_tiny_encoder(tmp_path / 'eye')}", name="eye", tag="1")
    with connect() as connection:
        upsert_items(
            connection,
            [{"item_id": str(n), "images": [(pictures / f"{n}.png").as_uri()]} for n in range(COUNT)],
        )
        ids = connection.scalars(select(ItemImage.image_id)).all()
    report = embed_images(ref, ids, everything=False, should_stop=lambda: False)
    assert report.failed == []
    with connect() as connection:
        report.write(connection)
        assert set(connection.scalars(select(Embedding.precision))) == {"float32"}
        connection.execute(text("UPDATE embeddings SET precision = 'bfloat16' WHERE image_id % 2 = 0"))
    return ref


def test_a_mixture_is_measured_on_the_catalogue_and_published(
    encoder: models.ModelVersionRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = publish_index("shop", encoder)
    assert report["published"]
    [(name, cosine)] = agreements(encoder.model_version_id).items()
    # Sixteen bits keep eight digits of two: an angle of a few thousandths after some layers, and no more.
    assert name == "bfloat16"
    assert 0.998 < cosine < 1
    current = read_current(open_store(), "shop")
    assert current is not None
    assert read_manifest(open_store(), current[0]).precisions == {"float32": COUNT // 2, "bfloat16": COUNT // 2}
    monkeypatch.setattr(measuring, "measure_agreement", lambda *_: pytest.fail("it is known"))
    assert not publish_index("shop", encoder)["published"]


def test_a_mixture_that_differs_is_refused(encoder: models.ModelVersionRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shopvision.encoders.tuning.precision.smallest_cosine", lambda *_: 0.9)
    with pytest.raises(GenerationRefused, match=r"bfloat16 agrees with float32 only to a cosine of 0\.9000"):
        publish_index("shop", encoder)
    assert read_current(open_store(), "shop") is None


def test_without_any_picture_nothing_is_measured(encoder: models.ModelVersionRef, tmp_path: Path) -> None:
    for picture in (tmp_path / "pictures").iterdir():
        picture.unlink()
    with pytest.raises(JobError, match="No picture of eye:1 can be read"):
        publish_index("shop", encoder)
    assert agreements(encoder.model_version_id) == {}


def test_equal_bytes_share_a_vector_of_one_precision_only(encoder: models.ModelVersionRef) -> None:
    with connect() as connection:
        rows = connection.execute(select(Embedding.image_sha256, Embedding.precision)).all()
        found = vectors_of_bytes(connection, encoder.model_version_id, [sha for sha, _ in rows], "bfloat16")
    assert set(found) == {sha for sha, precision in rows if precision == "bfloat16"}
