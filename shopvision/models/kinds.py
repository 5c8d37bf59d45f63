"""Kinds of model. Each room says in its ``kinds.py`` what its models do, how they are loaded and where they come from.

A kind is one class, and its module lists an object of it::

    class ColourClassifierKind(ModelKind):
        name = "colour_classifier"
        roles = ("colour_classifier",)

        def load(self, folder, *, device=None, precision="auto"):
            from our_shop.colours import ColourClassifier

            return ColourClassifier(folder, device=device, precision=precision)

    KINDS = (ColourClassifierKind(),)

The modules are imported when somebody asks for a kind, also to list them: heavy libraries are imported in functions.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from shopvision.errors import UserError
from shopvision.models.card import ModelCard
from shopvision.settings import get_settings

Precision = Literal["auto", "float32", "bfloat16", "float16"]

# The rooms that models come from. They stand on floors above this one, so they are named and not imported.
ROOMS = (
    "shopvision.encoders.kinds",
    "shopvision.graph.kinds",
    "shopvision.fashion.kinds",
    "shopvision.matching.kinds",
    "shopvision.selection.kinds",
)


@dataclass(frozen=True)
class ImportScheme:
    """A way in for models: ``shopvision models import PREFIX:REST``.

    Attributes:
        prefix: tells one scheme from the others.
        rest: what stands behind the colon, in capitals: ``NAME``, ``FILE``.
        about: what it brings in, in a few words.
        fetch: called with the text behind the colon, an empty folder that gets the model version, and the options as
            keywords; returns the card.
        options: what it may be told beside: name -> meaning.
    """

    prefix: str
    rest: str
    about: str
    fetch: Callable[..., ModelCard]
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.prefix}:{self.rest}"


class ModelKind(ABC):
    """What models of one kind have in common. Instances hold no state.

    Attributes:
        name: ``kind`` of their cards.
        roles: what they can serve as.
        schemes: where they come from, beside folders that hold a whole model version.
    """

    name: ClassVar[str]
    roles: ClassVar[tuple[str, ...]] = ()
    schemes: ClassVar[tuple[ImportScheme, ...]] = ()

    @abstractmethod
    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> Any:
        """The model, ready to run.

        One whose networks run compiled has them as ``compiled_modules``, for ``models warm``.

        Args:
            folder: of a model version of this kind.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
            precision: what it computes in; ``auto`` takes the fastest that the device has.

        Raises:
            UserError: the card builds no model, or there is no such device.
            JobError: the weights do not fit the card exactly.
        """

    def validate(self, folder: Path) -> None:
        """Refuse a model version that could not run; called at import. By default it is loaded once.

        Raises:
            UserError: see ``load``.
            JobError: see ``load``.
        """
        self.load(folder, device="cpu", precision="float32")

    def require_fit(self, card: ModelCard, role: str) -> None:  # noqa: B027 - most kinds need nothing more
        """Refuse a model of this kind that lacks what ``role`` needs of it, such as vectors.

        Raises:
            UserError: says what is missing.
        """

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - for those that know their metrics
        """Why a model of this kind should not serve ``role`` although it could: its own metrics show no skill.

        Returns:
            The reason, as the rest of a sentence that begins with the model; None where nothing speaks against it.
        """
        return None


def all_kinds() -> dict[str, ModelKind]:
    """Every kind, by name; imports the modules that define them.

    Raises:
        UserError: ``SHOPVISION_MODEL_KIND_MODULES`` names something else, or two kinds have one name.
    """
    kinds: dict[str, ModelKind] = {}
    for module in (*ROOMS, *get_settings().model_kind_modules):
        for kind in _kinds_in(module):
            if kind.name in kinds:
                raise UserError(
                    f"{module} defines the kind of model {kind.name!r}, which is there: choose another name."
                )
            kinds[kind.name] = kind
    return kinds


def find_kind(name: str) -> ModelKind:
    """The kind called ``name``.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    kinds = all_kinds()
    if name not in kinds:
        raise UserError(f"There is no kind of model {name!r}, only {', '.join(sorted(kinds))}: correct the card.")
    return kinds[name]


def all_roles() -> dict[str, tuple[str, ...]]:
    """Every role that some kind can serve -> the names of those kinds, in the order of the rooms."""
    roles: dict[str, tuple[str, ...]] = {}
    for kind in all_kinds().values():
        for role in kind.roles:
            roles[role] = (*roles.get(role, ()), kind.name)
    return roles


def all_schemes() -> dict[str, ImportScheme]:
    """Every way in, by its prefix."""
    return {scheme.prefix: scheme for kind in all_kinds().values() for scheme in kind.schemes}


def _kinds_in(module: str) -> Iterator[ModelKind]:
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        if module in ROOMS:
            raise
        raise UserError(f"SHOPVISION_MODEL_KIND_MODULES names {module!r}, which cannot be imported: {error}.") from None
    if not hasattr(imported, "KINDS"):
        raise UserError(f"SHOPVISION_MODEL_KIND_MODULES names {module!r}, which has no KINDS: list its kinds there.")
    yield from imported.KINDS
