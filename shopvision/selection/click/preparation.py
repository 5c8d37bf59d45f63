"""One look at every picture, text and entity, before anything is trained or measured; what is known is not computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shopvision.models.version_folder import read_card
from shopvision.selection.click.bank import EntityBank, entity_rows, mean_picture
from shopvision.selection.click.card import RECALL_FOLDER
from shopvision.selection.click.context import ContextText, Vector, context_text
from shopvision.selection.click.data import ClickData
from shopvision.selection.click.entities import EntityFacts, EntityTable, Order
from shopvision.settings import get_settings
from shopvision.training.features import Features, FeatureStore, OnProgress, digest, picture_features
from shopvision.training.pretrained import PictureSurvey
from shopvision.training.text_features import text_features

if TYPE_CHECKING:
    from pathlib import Path

    from shopvision.images import PictureDoor
    from shopvision.models.card import ModelCard
    from shopvision.selection.click.predict import DualTower, ImageRanker

Look = Callable[[Sequence[str]], PictureSurvey]


@dataclass(frozen=True)
class ContextRules:
    """What of an item is its context: ``entities`` and ``text`` of a ranker, and which entities come first."""

    entities: int
    text: ContextText
    order: Order = "counts"


@dataclass(frozen=True, eq=False)
class Prepared:
    """Clicks with all that frozen towers say of what they are about.

    Attributes:
        data: without the pictures that cannot be read.
        pictures: features by picture.
        texts: (items, d), zeros where an item has no text.
        bank: the items' entities.
        unreadable: address -> why it cannot be read; in the main process.
    """

    data: ClickData
    pictures: Features
    texts: Tensor
    bank: EntityBank
    unreadable: dict[str, str]


def feature_store(cache: Path, card: ModelCard, dimension: int, what: str, *facts: object) -> FeatureStore:
    """Where the vectors of one recall model are kept, for all runs of this machine.

    Args:
        cache: of features.
        card: of the recall model.
        dimension: of its vectors.
        what: ``pictures`` or ``texts``.
        facts: what they depend on beside: device, precision.
    """
    preprocessing = card.preprocessing and card.preprocessing.model_dump()
    key = digest(card.files, card.architecture.model_dump(), preprocessing, *facts)
    return FeatureStore(cache / f"{what}-{key[:16]}", dimension)


def prepare(
    data: ClickData,
    table: EntityTable,
    rules: ContextRules,
    *,
    look: Look,
    encode_texts: Callable[[Sequence[str]], Vector],
    dimension: int,
) -> Prepared:
    """Everything about the items that have a pair or a rate.

    Args:
        data: pairs of pictures.
        table: what is known of entities.
        rules: of the ranker.
        look: gives features of pictures, and says which cannot be read.
        encode_texts: n texts -> (n, dimension).
        dimension: of all vectors.
    """
    used, items = data.used_pictures(), data.used_items().tolist()
    ordered = {row: table.ordered(data.items[row].entities, rules.order) for row in items}
    needed, rows, counts = entity_rows(ordered, len(data.items), rules.entities)
    addresses = [data.pictures[row] for row in used.tolist()]
    survey = look([*addresses, *(uri for facts in needed for uri in facts.pictures)])
    features = survey.features
    if features is None:
        raise AssertionError("a look without features")

    gone = np.zeros(len(data.pictures), bool)
    gone[used] = ~survey.readable[: len(used)]
    by_picture = np.zeros(len(data.pictures), np.int64)
    by_picture[used] = features.rows[: len(used)]

    pictures = torch.zeros(len(needed) + 1, dimension)
    known: list[EntityFacts] = []
    start = len(used)
    for row, facts in enumerate(needed):
        places = np.arange(start, start + len(facts.pictures))
        start += len(facts.pictures)
        readable = places[survey.readable[places]]
        pictures[row] = torch.from_numpy(mean_picture(features.take(readable).numpy(), dimension))
        kept = tuple(uri for uri, good in zip(facts.pictures, survey.readable[places], strict=True) if good)
        known.append(replace(facts, pictures=kept))
    # Names are short and repeat; texts of items are told apart by them as well.
    names = torch.zeros(len(needed) + 1, dimension)
    if needed:
        names[:-1] = torch.from_numpy(encode_texts([facts.key.name for facts in needed]))
    texts = torch.zeros(len(data.items), dimension)
    said = [
        context_text(data.items[row].title, [key.name for key in data.items[row].entities], rules.text) for row in items
    ]
    spoken = [place for place, text in enumerate(said) if text]
    if spoken:
        vectors = encode_texts([said[place] for place in spoken])
        texts[[items[place] for place in spoken]] = torch.from_numpy(vectors)
    all_addresses = [*addresses, *(uri for facts in needed for uri in facts.pictures)]
    unreadable = {all_addresses[position]: reason for position, reason in survey.reasons.items()}
    bank = EntityBank(tuple(known), pictures, names, rows, counts)
    return Prepared(data.without_pictures(gone), Features(features.vectors, by_picture), texts, bank, unreadable)


def prepare_for(
    ranker: ImageRanker,
    folder: Path,
    data: ClickData,
    table: EntityTable,
    door: PictureDoor,
    *,
    order: Order = "counts",
    on_progress: OnProgress = lambda *_: None,
) -> Prepared:
    """What a ranker sees of clicks, computed as serving computes it; what is known is not computed again.

    Args:
        ranker: of the model version in ``folder``.
        folder: of the model version.
        data: pairs of pictures.
        table: what is known of entities.
        door: that the pictures come through.
        order: which of an item's entities come first.
        on_progress: called with (pictures done, all).

    Raises:
        TransientError: a source of pictures is away.
    """
    card = read_card(folder / RECALL_FOLDER)
    cache = get_settings().cache_dir / "features"
    pictures, texts = (
        feature_store(cache, card, ranker.dimension, what, ranker.device.type) for what in ("pictures", "texts")
    )

    def look(uris: Sequence[str]) -> PictureSurvey:
        features, reasons = picture_features(uris, pictures, ranker.towers, door, on_progress)
        readable = np.ones(len(uris), bool)
        readable[list(reasons)] = False
        return PictureSurvey(readable, features.rows, reasons, features)

    return prepare(
        data,
        table,
        ContextRules(ranker.entities, ranker.text_rule, order),
        look=look,
        encode_texts=dual_tower_texts(ranker.towers, texts),
        dimension=ranker.dimension,
    )


def dual_tower_texts(
    tower: DualTower, store: FeatureStore, on_progress: OnProgress = lambda *_: None
) -> Callable[[Sequence[str]], Vector]:
    """``encode_texts`` of a recall model that remembers: each distinct text is encoded once and kept."""

    def encode(texts: Sequence[str]) -> Vector:
        features = text_features(
            texts, str, store, lambda some: torch.from_numpy(tower.encode_texts(some)), on_progress
        )
        vectors: Vector = features.take(np.arange(len(texts))).numpy()
        return vectors

    return encode
