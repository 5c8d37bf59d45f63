"""The configuration file of ``shopvision train ensemble``: several members and what they have in common."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shopvision.errors import UserError
from shopvision.evaluation.promises import Promise
from shopvision.matching.families.registry import find_family
from shopvision.matching.fitting.config import DEFAULT_FAMILY, DataConfig, MatcherConfig
from shopvision.matching.fitting.ensemble_fit import NO_GROUPS
from shopvision.models.card import FolderName

Section = dict[str, Any]


class EnsembleSection(BaseModel):
    """Section ``[ensemble]``.

    Attributes:
        name: of the model version.
        method: how members are weighed, see ``ensemble_fit.METHODS``.
        unseen_apart: fit thresholds of pairs of categories that training never saw apart; not with ``stacking``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName = "ensemble"
    method: Literal["stacking", "threshold_margin", "f1_vote"] = "stacking"
    unseen_apart: bool = False

    @model_validator(mode="after")
    def _thresholds_to_fit_apart(self) -> Self:
        if self.unseen_apart and self.method == "stacking":
            raise UserError(NO_GROUPS)
        return self


class MemberSection(BaseModel):
    """A section ``[[members]]``: what a member has beside, or in place of, what all have.

    Attributes:
        name: of the member, and of its folder.
        text: as in the file of ``train matcher``, as the next four.
        model: its family and options.
        pretraining: of families that learn from items.
        contrastive: of families that put offers of one product together first.
        train: rates and batches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName
    text: Section = {}
    model: Section = {}
    pretraining: Section | None = None
    contrastive: Section | None = None
    train: Section = {}


class EnsembleConfig(BaseModel):
    """The whole file.

    Attributes:
        data: pairs of all members, as in the file of ``train matcher``.
        ensemble: of the whole.
        text: of all members that read texts, as far as it means anything to their families.
        pretraining: of all members with a section of that name, as the next.
        contrastive: see above.
        train: of all members.
        thresholds: what is asked of verdicts.
        members: two or more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    ensemble: EnsembleSection = EnsembleSection()
    text: Section = {}
    pretraining: Section = {}
    contrastive: Section = {}
    train: Section = {}
    thresholds: Promise = Promise()
    members: tuple[MemberSection, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _members_fit_together(self) -> Self:
        names = [member.name for member in self.members]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two members are called {twice!r}: give each a name of its own")
        for member in self.members:
            if "seed" in member.train:
                raise ValueError(
                    f"the member {member.name!r} has a seed of its own: the seed parts the pairs, which must be parted "
                    "alike for all; set it in [train], and seeds of a member to try several"
                )
        _ = self.of_members()
        return self

    def of_members(self) -> dict[str, MatcherConfig]:
        """By name, what each is trained with.

        Raises:
            UserError: a member's sections make no matcher; the message names it.
        """
        return {member.name: self._of_member(member) for member in self.members}

    def _of_member(self, member: MemberSection) -> MatcherConfig:
        family = find_family(str(member.model.get("family", DEFAULT_FAMILY)))
        sections: dict[str, Section] = {
            "data": self.data.model_dump(exclude_unset=True),
            "model": {"name": member.name} | member.model,
            "train": self.train | member.train,
            # The verdicts of an ensemble are its own, and nobody asks its members for theirs.
            "thresholds": self.thresholds.model_dump() | {"cross_fit": 0},
        }
        if family.reads_text or member.text:
            shared = {name: value for name, value in self.text.items() if name not in family.unread_text_options}
            sections["text"] = shared | member.text
        if member.pretraining is not None:
            sections["pretraining"] = self.pretraining | member.pretraining
        if member.contrastive is not None:
            sections["contrastive"] = self.contrastive | member.contrastive
        try:
            return MatcherConfig.model_validate(sections)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise UserError(f"member {member.name!r}: {field}: {first['msg'].removeprefix('Value error, ')}.") from None
        except UserError as error:
            raise UserError(f"member {member.name!r}: {error}") from None
