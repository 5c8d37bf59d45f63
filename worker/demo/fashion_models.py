"""The models of the fashion demo: a detector and an encoder that learn from the folder, composed to one encoder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect

if TYPE_CHECKING:
    from shopvision.fashion.detection.config import DetectorConfig
    from shopvision.fashion.encoding.config import EncoderConfig
    from shopvision.models import ModelVersionRef
    from worker.demo.fashion_folder import FashionFolder
    from worker.demo.guide import Guide

LEARNT_PHOTOS = 3_000  # that the detector sees, in all epochs together: about eight minutes on two cores
EPOCHS = (1, 30)
# With fewer there are no pictures enough to learn from for as many main directions as vectors have numbers.
FEWEST_PAIRS = 160
MOST_VIEWS = 8_000  # of all pictures, whose features the encoder learns from: about three minutes
SCORE = 0.3  # of garments, where the detector has chosen none: what little data give is less sure of itself


def detector_config(folder: FashionFolder, epochs: int | None) -> DetectorConfig:
    """A detector for laptops; by default for as many epochs as show it ``LEARNT_PHOTOS``, however many there are."""
    from shopvision.fashion.detection.config import DetectorConfig

    least, most = EPOCHS
    enough = max(least, min(most, round(LEARNT_PHOTOS / max(1, len(folder.data.pictures)))))
    return DetectorConfig.model_validate(
        {"data": {"boxes": folder.boxes}, "model": {"name": "demo-detector"}, "train": {"epochs": epochs or enough}}
    )


def train_detector(guide: Guide, config: DetectorConfig, photos: int) -> ModelVersionRef:
    """Train a detector, and let it find garments."""
    from shopvision import models
    from shopvision.fashion.detection.train import train_detector

    guide.say(f"training a detector on {photos} photos with boxes, {config.train.epochs} epochs ...")
    ref, report = guide.learn(partial(train_detector, config))
    models.activate("fashion_detector", ref.spec, force=True)  # a demonstration shows what little data give
    guide.say(f"{ref.spec} finds garments now: mAP50 {report.metrics['map_50']:.2f} on photos that were held back")
    return ref


def encoder_config(folder: FashionFolder, pictures: int) -> EncoderConfig:
    """A projection that learns which pictures show one item; of a large catalogue, from fewer views of each."""
    from shopvision.fashion.encoding.config import EncoderConfig

    data = {"items": folder.items, "images": str(folder.catalogue), "classes": folder.classes}
    config = EncoderConfig.model_validate({"data": data, "model": {"name": "demo-encoder"}})
    views = max(1, min(config.train.views, MOST_VIEWS // max(1, pictures) - 1))
    return config.model_copy(update={"train": config.train.model_copy(update={"views": views})})


def train_encoder(guide: Guide, folder: FashionFolder) -> ModelVersionRef:
    """Train an encoder on the pictures of the catalogue; where hardly an item has two, take one as it is."""
    from shopvision import models
    from shopvision.fashion.encoding.train import train_encoder
    from shopvision.models.serving import DEFAULT_ENCODER

    if folder.pairs < FEWEST_PAIRS:
        guide.say(f"only {folder.pairs} further pictures of items to learn from: the encoder is taken as it is")
        return models.import_model(DEFAULT_ENCODER)
    with connect() as connection:
        pictures = connection.scalar(select(func.count()).select_from(ItemImage)) or 0
    guide.say(f"training an encoder on {pictures} pictures of the catalogue ...")
    ref, report = guide.learn(partial(train_encoder, encoder_config(folder, pictures)))
    guide.say(f"{ref.spec}: a further picture finds its item first in {report.metrics['recall_1']:.0%} of cases")
    return ref


def compose_encoder(guide: Guide, folder: FashionFolder, detector: ModelVersionRef, encoder: ModelVersionRef) -> None:
    """Put detector and encoder together, to serve as the catalogue's encoder."""
    from shopvision import models
    from shopvision.fashion.composition.policy import LEAST_SCORE, CropPolicy
    from shopvision.fashion.composition.registering import compose_version
    from worker.demo.garment_classes import classes_by_category

    categories = _categories()
    classes = folder.classes
    if classes is None:
        classes = classes_by_category(categories, folder.data.classes)
        guide.say(f"{len(classes)} of {len(categories)} categories name a class of garment")
    score = max(detector.card.thresholds.get("score", SCORE), LEAST_SCORE)
    ref = compose_version(
        models.local_copy(detector),
        models.local_copy(encoder),
        by_class={},
        policy=CropPolicy(crop="main", score=score),
        classes=classes,
        name="demo-garments",
    )
    models.activate("catalogue_encoder", ref.spec, force=True)
    guide.say(f"{ref.spec} embeds the main garment of each picture now")


def _categories() -> list[str]:
    with connect() as connection:
        wanted = select(Item.category).where(Item.category.is_not(None)).distinct().order_by(Item.category)
        return [category for category in connection.scalars(wanted) if category]
