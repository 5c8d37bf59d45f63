"""The card of an ensemble of pair scorers: a model version that holds its members, and how their words are weighed.

``card.json`` is that of a pair scorer of the family ``ensemble``; every member is a whole model version in
``members/<number>``. Whether a pair's categories are among those of training can choose between two sets of thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shopvision.errors import UserError
from shopvision.evaluation.calibration import apply, check_thresholds
from shopvision.matching.families.card import KIND, read_card
from shopvision.matching.scoring.ensemble_rules import LogisticStacking, f1_vote, group_thresholds, threshold_margin
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import FileWriter, member_folder, write_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAMILY = "ensemble"


class EnsembleArguments(BaseModel):
    """How members' probabilities become one, stored in ``architecture.arguments`` of the card.

    Attributes:
        family: ``ensemble``.
        members: folders of the members within the model version.
        specs: ``name:tag`` of the members, as they were.
        method: ``threshold_margin`` sums distances from the thresholds, ``f1_vote`` lets every member vote with its F1,
            ``stacking`` is a logistic regression.
        thresholds: of the first two, (2, members): for pairs of seen and of unseen categories; a member without a
            threshold (null) is not asked about such pairs.
        f1: of ``f1_vote``, (members).
        stacking: of ``stacking``, from ``LogisticStacking.to_json``.
        seen_categories: of training; None where pairs are not told apart.
        calibration: from the method's number to a probability. That number is the sum, the difference of the votes
            (same minus different), or the log-odds of the regression.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Literal["ensemble"] = "ensemble"
    members: tuple[str, ...] = Field(min_length=1)
    specs: tuple[str, ...]
    method: Literal["threshold_margin", "f1_vote", "stacking"]
    thresholds: tuple[tuple[float | None, ...], tuple[float | None, ...]] | None = None
    f1: tuple[float, ...] | None = None
    stacking: dict[str, Any] | None = None
    seen_categories: tuple[str, ...] | None = None
    calibration: dict[str, Any] = {"method": "none"}

    @model_validator(mode="after")
    def _fit_the_method(self) -> EnsembleArguments:
        rows = self.thresholds or ()
        weights = () if self.stacking is None else self.stacking.get("weights", ())
        needed: dict[str, list[Sequence[Any]]] = {
            "threshold_margin": [*rows] or [()],
            "f1_vote": [*rows, self.f1 or ()],
            "stacking": [weights],
        }
        for values in [*needed[self.method], self.specs]:
            if len(values) != len(self.members):
                raise ValueError(f"{self.method} of {len(self.members)} members needs a number for each of them")
        return self

    def combine(self, probabilities: ArrayLike, unseen: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of pairs from those of the members.

        Args:
            probabilities: (n, members); NaN where a member did not score the pair.
            unseen: (n,) whether either item's category is new.

        Returns:
            (n,), calibrated.
        """
        return apply(self.calibration, self.margins(probabilities, unseen))

    def margins(self, probabilities: ArrayLike, unseen: ArrayLike) -> NDArray[np.float64]:
        """As ``combine``, before calibration: "the same" where it is at least 0; for fitting the calibration."""
        if self.method == "stacking":
            return LogisticStacking.from_json(self.stacking or {}).log_odds(probabilities)
        table = np.array([[np.nan if value is None else value for value in row] for row in self.thresholds or ()])
        thresholds = group_thresholds(np.asarray(unseen, bool), table)
        if self.method == "threshold_margin":
            return threshold_margin(probabilities, thresholds)
        different, same = f1_vote(probabilities, thresholds, np.array(self.f1))
        return same - different


def save_ensemble(
    folder: Path,
    members: Sequence[Path],
    arguments: EnsembleArguments,
    *,
    name: str,
    thresholds: dict[str, float],
    tag: str | None = None,
    more_files: Sequence[FileWriter] = (),
    **card_fields: Any,
) -> ModelCard:
    """Write a model version with copies of its members, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: empty, or not there.
        members: folders of model versions, in the order of the arguments' numbers.
        arguments: see ``EnsembleArguments``; ``ensemble_arguments`` makes them.
        name: of the ensemble.
        thresholds: probabilities of ``same``, ``different`` and ``decision``.
        tag: by default made from the content.
        more_files: write what else shall lie in the folder.
        card_fields: further fields of ``ModelCard``: licence, training_data, metrics, promises.

    Raises:
        UserError: a member is no pair scorer, or itself an ensemble; thresholds out of order.
    """
    check_thresholds(thresholds)
    for member in members:
        card = read_card(member)
        if card.architecture.name == FAMILY:
            raise UserError(f"{card.spec} is itself an ensemble: name its members instead.")
    return write_version(
        folder,
        [
            *(member_folder(source, place) for source, place in zip(members, arguments.members, strict=True)),
            *more_files,
        ],
        name=name,
        tag=tag,
        kind=KIND,
        architecture=Architecture(library="shopvision", name=FAMILY, arguments=arguments.model_dump(mode="json")),
        source=f"{FAMILY} of {', '.join(arguments.specs)}",
        thresholds=thresholds,
        **card_fields,
    )


def ensemble_arguments(members: Sequence[Path], method: str, **fields: Any) -> EnsembleArguments:
    """Arguments of an ensemble of these model versions.

    Args:
        members: their folders.
        method: see ``EnsembleArguments``, as the further fields.

    Raises:
        UserError: a member is no pair scorer, or the fields do not fit the method.
    """
    specs = tuple(read_card(folder).spec for folder in members)
    places = tuple(f"members/{number}" for number in range(len(members)))
    return checked_arguments({"members": places, "specs": specs, "method": method, **fields}, "ensemble")


def member_names(specs: Sequence[str]) -> tuple[str, ...]:
    """What members are called, of their ``name:tag``: by name where that tells them apart."""
    names = tuple(spec.rpartition(":")[0] for spec in specs)
    return names if len(set(names)) == len(names) else tuple(specs)


def checked_arguments(fields: dict[str, Any], where: str) -> EnsembleArguments:
    """Arguments of plain values.

    Raises:
        UserError: they do not fit the method; the message begins with ``where``.
    """
    try:
        return EnsembleArguments.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {f'{field}: ' if field else ''}{first['msg']}.") from None
