"""What a family of pair models is: the whole contract between a family and everything that trains, stores or asks it.

A family is one module of this package: a class derived from ``OneTowerFamily`` or ``TwoTowerFamily`` that is decorated
with ``registry.register``. Nothing else asks which family a model is of.

Letters in shapes: n pairs or items of a batch, m items in memory, d dimensions of item vectors or picture features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from torch import nn

from shopvision.encoders.tokenizer_files import read_tokenizer, tokenizer_files
from shopvision.errors import ItemError
from shopvision.matching.families._network import ItemNetwork, ItemReader, PairNetwork, PairReader
from shopvision.matching.families._parts import ArgumentsT, FrozenFeatures, OptionsT, Parts, Start
from shopvision.matching.families.axes import (
    ONE_TOWER_AXES,
    TWO_TOWER_AXES,
    Axes,
    Head,
    Interaction,
    LegalAxes,
    Loss,
    Similarity,
    require_legal,
)
from shopvision.matching.families.losses import LOGIT_LOSSES, VECTOR_LOSSES, LogitLoss, VectorLoss
from shopvision.matching.families.picture_regions import RegionPreprocessing, with_detector

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.matching.families.text_reading import TextOptions
    from shopvision.models.card import ModelCard
    from shopvision.models.version_folder import FileWriter

PictureInput = Literal["none", "pixels", "features"]


class Family(ABC, Generic[ArgumentsT, OptionsT]):
    """A kind of pair model. The classes below settle what one tower and two have in common.

    Attributes:
        name: in configurations and cards.
        reads_text: whether items need texts, and the configuration may have a section ``[text]``.
        unread_text_options: fields of that section that mean nothing here, and what to do instead.
        pictures: what the network reads of a picture: ``pixels``, uint8 as prepared, or ``features`` from
            ``Parts.image_encoder``. Zeros stand for a picture that an item does not have.
        arguments: their class.
        options: their class.
        interaction: whether items have vectors (``two_tower``).
        legal: heads, similarities and losses that go together.
        usual_head: where the configuration names none.
    """

    name: ClassVar[str]
    reads_text: ClassVar[bool]
    unread_text_options: ClassVar[Mapping[str, str]] = {}
    pictures: ClassVar[PictureInput] = "none"
    arguments: type[ArgumentsT]
    options: type[OptionsT]
    interaction: ClassVar[Interaction]
    legal: ClassVar[LegalAxes]
    usual_head: ClassVar[Head]

    # -- what a family says -------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, options: OptionsT, texts: TextOptions, items: Sequence[Item]) -> Start[ArgumentsT]:
        """Fetch the encoders that the configuration names, and settle the arguments.

        Args:
            options: section ``[model]``.
            texts: section ``[text]``.
            items: those of the training pairs, for statistics.

        Raises:
            UserError: an encoder cannot be had, or the options fit no model.
        """

    def freeze(self, network: Any, options: OptionsT) -> Sequence[nn.Module]:  # noqa: ARG002 - most keep nothing
        """Switch off the gradients of what training is to keep as it is.

        Returns:
            Submodules that stay in evaluation mode as well: their outputs are the same in every step.

        Raises:
            UserError: there is no such part.
        """
        return ()

    def frozen_features(self, network: Any, options: OptionsT) -> FrozenFeatures | None:  # noqa: ARG002
        """What is computed once for every picture; None where the network reads pixels in every step."""
        return None

    def flips(self, options: OptionsT) -> float:  # noqa: ARG002 - most look at no pixels
        """Share of pictures that are mirrored in training, where the network reads pixels in every step."""
        return 0.0

    def check(self, item: Item, *, has_text: bool) -> None:
        """Refuse an item that gives the model nothing to read.

        Args:
            item: any.
            has_text: what the reader says of it; not what its fields hold, of which a text builder may leave out some.

        Raises:
            ItemError: ``no_text`` or ``no_picture``.
        """
        if (self.reads_text and has_text) or (self.reads_pictures and item.picture):
            return
        if self.reads_text:
            picture = " and no picture" if self.reads_pictures else ""
            raise ItemError(
                "no_text", f"Item {item.item_id!r} has no words that the model reads{picture}: give it a title."
            )
        raise ItemError("no_picture", f"Item {item.item_id!r} has no picture: give it one, or use a model of texts.")

    def part_files(self, parts: Parts) -> Sequence[FileWriter]:
        """What writes the files of a version folder beside card and weights."""
        files = [] if parts.tokenizer is None else [tokenizer_files(parts.tokenizer)]
        if isinstance(parts.preprocessing, RegionPreprocessing):
            files.append(parts.preprocessing.detector_files())
        return files

    def load_parts(self, folder: Path, card: ModelCard, arguments: ArgumentsT) -> Parts:  # noqa: ARG002
        """The inverse of ``part_files``; weights of an image encoder are put in by the caller.

        Raises:
            JobError: a file is missing or damaged.
        """
        tokenizer = read_tokenizer(folder) if self.reads_text else None
        return Parts(tokenizer=tokenizer, preprocessing=with_detector(card.preprocessing, folder))

    # -- what follows from it -----------------------------------------------------------------------------------------

    @property
    def reads_pictures(self) -> bool:
        """Whether the model reads pictures."""
        return self.pictures != "none"

    @property
    def needs_every_picture(self) -> bool:
        """Whether an item without a picture cannot be read."""
        return self.reads_pictures and not self.reads_text

    def axes(self, options: OptionsT) -> Axes:
        """The four choices.

        Raises:
            UserError: they do not go together.
        """
        head = options.head or self.usual_head
        similarity: Similarity = options.similarity or ("cosine" if head == "metric" else "none")
        loss = options.loss or ("contrastive" if similarity in ("l1", "l2") else "bce")
        axes = Axes(interaction=self.interaction, head=head, similarity=similarity, loss=loss)
        require_legal(axes, self.legal, self.name)
        return axes

    def settled(self, options: OptionsT) -> dict[str, Any]:
        """The fields of ``FamilyArguments`` that follow from the options."""
        axes = self.axes(options)
        symmetric = self.order_matters(axes) if options.symmetric is None else options.symmetric
        return {"family": self.name, "axes": axes, "dropout": options.dropout, "symmetric": symmetric}

    @abstractmethod
    def order_matters(self, axes: Axes) -> bool:
        """Whether a pair scores otherwise when its items are swapped."""


class OneTowerFamily(Family[ArgumentsT, OptionsT]):
    """Families whose network reads both items of a pair at once.

    Attributes:
        losses: by name, of log-odds.
    """

    interaction = "one_tower"
    legal: ClassVar[LegalAxes] = ONE_TOWER_AXES
    usual_head = "pair"
    losses: ClassVar[Mapping[Loss, LogitLoss]] = LOGIT_LOSSES

    @abstractmethod
    def build(self, arguments: ArgumentsT, parts: Parts) -> PairNetwork:
        """The network, float32, weights still random; its ``state_dict`` is all that is stored of it.

        Raises:
            UserError: the arguments build nothing.
        """

    @abstractmethod
    def reader(self, arguments: ArgumentsT, parts: Parts) -> PairReader[Any]:
        """What makes the network's batches of items and pictures.

        Raises:
            UserError: the arguments do not fit the parts.
        """

    def order_matters(self, axes: Axes) -> bool:  # noqa: ARG002 - in a sequence it does
        """See ``Family``."""
        return True


class TwoTowerFamily(Family[ArgumentsT, OptionsT]):
    """Families whose network gives each item a vector.

    Attributes:
        losses: by name, of item vectors.
    """

    interaction = "two_tower"
    legal: ClassVar[LegalAxes] = TWO_TOWER_AXES
    usual_head = "metric"  # a cosine starts from what a pretrained encoder knows, an interaction head from nothing
    losses: ClassVar[Mapping[Loss, VectorLoss]] = VECTOR_LOSSES

    @abstractmethod
    def build(self, arguments: ArgumentsT, parts: Parts) -> ItemNetwork:
        """As in ``OneTowerFamily``."""

    @abstractmethod
    def reader(self, arguments: ArgumentsT, parts: Parts) -> ItemReader[Any]:
        """As in ``OneTowerFamily``."""

    def item_reader(self, arguments: ArgumentsT, parts: Parts) -> ItemReader[Any]:
        """What reads items before there are pairs, see ``_pretraining`` and ``_contrasting``."""
        return self.reader(arguments, parts)

    def order_matters(self, axes: Axes) -> bool:
        """See ``Family``."""
        return axes.head == "additive"
