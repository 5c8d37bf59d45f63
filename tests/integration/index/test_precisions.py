"""An index mixes vectors of several precisions only where these were measured to agree."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from shopvision.database import connect
from shopvision.encoders.tuning.record import LEAST_AGREEMENT
from shopvision.index.current import read_current, read_manifest
from shopvision.index.gate import GenerationRefused
from shopvision.index.generation_rows import list_generations
from shopvision.index.manifest import Manifest
from shopvision.index.precisions import AgreementUnknownError, agreements, keep_agreement
from shopvision.index.publish import compact, publish
from shopvision.storage import ObjectStore
from tests.integration.index.catalogue import Toy, add_items, embed, toy


def served(store: ObjectStore) -> Manifest:
    found = read_current(store, "shop")
    assert found is not None
    return read_manifest(store, found[0])


def mixed() -> Toy:
    """300 pictures: 200 in float32, 100 in bfloat16."""
    shop = toy()
    embed(shop.model, range(200), shop.vectors[:200], precision="float32")
    embed(shop.model, range(200, 300), shop.vectors[200:], precision="bfloat16")
    return shop


def test_vectors_of_one_precision_and_older_ones_are_counted_and_published(store: ObjectStore) -> None:
    shop = toy()
    embed(shop.model, range(100), shop.vectors[:100], precision="bfloat16")
    publish("shop", shop.model, store)
    manifest = served(store)
    assert manifest.base.precisions == manifest.precisions == {"bfloat16": 100, "unknown": 200}


def test_a_mixture_that_nobody_measured_is_not_published(store: ObjectStore) -> None:
    shop = mixed()
    with pytest.raises(AgreementUnknownError, match=r"100 vectors in bfloat16 and 200 vectors in float32") as refused:
        publish("shop", shop.model, store)
    assert refused.value.precisions == ("bfloat16",)
    assert read_current(store, "shop") is None
    assert list_generations("shop") == []


def test_a_mixture_is_published_where_it_agrees(store: ObjectStore) -> None:
    shop = mixed()
    keep_agreement(shop.model.model_version_id, "bfloat16", LEAST_AGREEMENT + 1e-4, 16)
    publish("shop", shop.model, store)
    assert served(store).precisions == {"float32": 200, "bfloat16": 100}


def test_a_mixture_is_refused_where_it_does_not_agree(store: ObjectStore) -> None:
    shop = mixed()
    keep_agreement(shop.model.model_version_id, "bfloat16", LEAST_AGREEMENT - 1e-4, 16)
    with pytest.raises(GenerationRefused, match=r"bfloat16 agrees with float32 only to .* SHOPVISION_TUNING"):
        publish("shop", shop.model, store)
    [row] = list_generations("shop")
    assert row.state == "refused"
    assert "would mix" in (row.refused or "")
    keep_agreement(shop.model.model_version_id, "bfloat16", 1.0, 16)
    assert agreements(shop.model.model_version_id) == {"bfloat16": 1.0}
    publish("shop", shop.model, store)


def test_a_delta_that_would_mix_is_refused_and_one_that_ends_a_mixture_is_published(store: ObjectStore) -> None:
    shop = toy()
    embed(shop.model, range(300), shop.vectors, precision="float32")
    publish("shop", shop.model, store)
    add_items(300, 2)
    embed(shop.model, range(300, 302), shop.vectors[:2], precision="bfloat16")
    with pytest.raises(AgreementUnknownError):
        publish("shop", shop.model, store)
    keep_agreement(shop.model.model_version_id, "bfloat16", 0.9, 16)
    before = served(store).path
    with pytest.raises(GenerationRefused, match="would mix"):
        publish("shop", shop.model, store)
    assert served(store).path == before
    embed(shop.model, range(300, 302), shop.vectors[2:4], precision="float32")
    report = publish("shop", shop.model, store)
    assert (report.kind, served(store).precisions) == ("delta", {"float32": 302})


def test_of_hidden_vectors_nothing_is_asked(store: ObjectStore) -> None:
    """The base holds one bfloat16 vector, which a delta replaces: together with its base it would seem mixed."""
    shop = toy()
    embed(shop.model, range(300), shop.vectors, precision="bfloat16")
    with connect() as connection:
        connection.execute(text("UPDATE embeddings SET precision = NULL WHERE image_id > 0"))
    publish("shop", shop.model, store)
    embed(shop.model, [0], shop.vectors[5:6], precision="float32")
    keep_agreement(shop.model.model_version_id, "bfloat16", 0.9, 16)
    assert publish("shop", shop.model, store).kind == "full"
    assert served(store).precisions == {"float32": 1, "unknown": 299}
    assert compact("shop", store).kind == "full"
