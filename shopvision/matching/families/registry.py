"""Which families of pair models there are: every module of this package may bring one."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any, TypeAlias, TypeVar

from shopvision.errors import UserError
from shopvision.matching import families
from shopvision.matching.families._family import OneTowerFamily, TwoTowerFamily

AnyFamily: TypeAlias = OneTowerFamily[Any, Any] | TwoTowerFamily[Any, Any]
FamilyClass = TypeVar("FamilyClass", bound=type[OneTowerFamily[Any, Any]] | type[TwoTowerFamily[Any, Any]])

REGISTERED: dict[str, AnyFamily] = {}


def register(family: FamilyClass) -> FamilyClass:
    """Make a family known by its name; decorates its class."""
    REGISTERED[family.name] = family()
    return family


def find_family(name: str) -> AnyFamily:
    """The family of that name.

    Raises:
        UserError: there is none.
    """
    _find_modules()
    if name not in REGISTERED:
        raise UserError(f"There is no family '{name}' of pair models: use one of {', '.join(sorted(REGISTERED))}.")
    return REGISTERED[name]


def family_names() -> list[str]:
    """Names of all families, in order."""
    _find_modules()
    return sorted(REGISTERED)


@cache
def _find_modules() -> None:
    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        importlib.import_module(module.name)
