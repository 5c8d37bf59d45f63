"""Rankers of plans' and of items' pictures, and finders of pictures by text, as kinds of model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.models.card import ModelCard
    from shopvision.selection.click.predict import ImageRanker
    from shopvision.selection.clik.predict import PlanRanker
    from shopvision.selection.recall.predict import RecallModel


def _from_clik(file: str, folder: Path, *, text: str | None = None, image: str | None = None) -> ModelCard:
    from shopvision.selection.clik.checkpoints import import_checkpoint

    return import_checkpoint(Path(file).expanduser(), folder, text=text, image=image)


def _from_align(file: str, folder: Path, *, vocabulary: str | None = None) -> ModelCard:
    from shopvision.selection.recall.checkpoints import import_checkpoint

    return import_checkpoint(
        Path(file).expanduser(), folder, vocabulary=None if vocabulary is None else Path(vocabulary)
    )


def _from_siamese(file: str, folder: Path, *, vocabulary: str | None = None, recall: str | None = None) -> ModelCard:
    from shopvision.selection.click.checkpoints import import_checkpoint

    words = None if vocabulary is None else Path(vocabulary).expanduser()
    return import_checkpoint(Path(file).expanduser(), folder, vocabulary=words, recall=recall)


class PlanRankerKind(ModelKind):
    """Which pictures fit a plan's topic best: CLIK."""

    name = "plan_ranker"
    roles = ("plan_ranker",)
    schemes = (
        ImportScheme(
            "clik",
            "FILE",
            "a checkpoint of the published CLIK code",
            _from_clik,
            {
                "text": "source of the text encoder where the file does not say it, e.g. hf-hub:ORG/NAME",
                "image": "timm name of the image encoder, likewise",
            },
        ),
    )

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> PlanRanker:
        """See ``ModelKind``."""
        from shopvision.selection.clik.predict import PlanRanker

        return PlanRanker(folder, device=device, precision=precision)

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - it serves one role
        """See ``ModelKind``."""
        found, chance = card.metrics.get("mrr"), card.metrics.get("mrr_random")
        if found is None or chance is None or found > chance:
            return None
        return f"ranks pictures no better than chance (MRR {found:.3f}, chance {chance:.3f})"


class ImageRankerKind(ModelKind):
    """Which picture of an item people will click."""

    name = "image_ranker"
    roles = ("image_ranker",)
    schemes = (
        ImportScheme(
            "siamese",
            "FILE",
            "a checkpoint of the published click ranker",
            _from_siamese,
            {
                "vocabulary": "vocab.txt of its BERT, which the file does not hold",
                "recall": "instead: NAME:TAG or folder of a recall model with the same weights, whose vectors it reads",
            },
        ),
    )

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> ImageRanker:
        """See ``ModelKind``."""
        from shopvision.selection.click.predict import ImageRanker

        return ImageRanker(folder, device=device, precision=precision)

    def validate(self, folder: Path) -> None:
        """See ``ModelKind``; also loads the recall model inside."""
        _ = self.load(folder, device="cpu", precision="float32").towers

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - it serves one role
        """See ``ModelKind``."""
        found = card.metrics.get("pair_accuracy")
        if found is None or found > 0.5:
            return None
        return f"orders two pictures of an item no better than chance (accuracy {found:.3f})"


class ImageRecallKind(ModelKind):
    """Which pictures show what a text says: a tower for pictures and one for texts."""

    name = "image_recall"
    roles = ("image_recall",)
    schemes = (
        ImportScheme(
            "align",
            "FILE",
            "the recall model of AutoImageSelection, align_model.pth",
            _from_align,
            {"vocabulary": "vocab.txt of its BERT, which the file does not hold"},
        ),
    )

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> RecallModel:
        """See ``ModelKind``."""
        from shopvision.selection.recall.predict import RecallModel

        return RecallModel(folder, device=device, precision=precision)

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - it serves one role
        """See ``ModelKind``."""
        found, chance = card.metrics.get("hit_rate_5"), card.metrics.get("random_hit_rate_5")
        if found is None or chance is None or found > chance:
            return None
        return f"finds pictures no better than chance (hit rate@5 {found:.3f}, chance {chance:.3f})"


KINDS = (PlanRankerKind(), ImageRankerKind(), ImageRecallKind())
