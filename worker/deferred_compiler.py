"""Processes that never compile do not import torch's compiler, which is a third of what importing timm costs.

Two things import it at once: torchvision, for one function that ``roi_align`` asks on devices other than CPUs, and
every function that is decorated with ``torch.compiler.disable``. Here both import it when there is something to ask.
Packages are made in processes of their own, see ``shopvision.encoders.compiled``; what compiles here all the same finds
everything as it would be.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

COMPILER = "torch._dynamo"
COMPILER_UTILITIES = "torch._dynamo.utils"
DECORATORS = "torch.compiler"
ASKS_AT_IMPORT = "torchvision.ops.roi_align"


def defer_the_compiler() -> None:
    """From now on importing torch, torchvision and timm imports no compiler; transformers' masks still do.

    Imports nothing itself.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in (DECORATORS, ASKS_AT_IMPORT):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeferringLoader(spec.loader)
        return spec


class _DeferringLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See ``Loader``."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See ``Loader``."""
        if module.__name__ == DECORATORS:
            self._loader.exec_module(module)
            module.disable = _deferred_disable(module.disable)  # type: ignore[attr-defined]
            return
        stand_ins = {} if COMPILER in sys.modules else _stand_ins()
        sys.modules.update(stand_ins)
        try:
            self._loader.exec_module(module)
        finally:
            for name in stand_ins:
                del sys.modules[name]


def is_compile_supported(device_type: str) -> bool:
    """What the function of this name in ``torch._dynamo.utils`` says."""
    return bool(import_module(COMPILER_UTILITIES).is_compile_supported(device_type))


def _stand_ins() -> dict[str, ModuleType]:
    utilities = ModuleType(COMPILER_UTILITIES)
    utilities.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    return {COMPILER: ModuleType(COMPILER), COMPILER_UTILITIES: utilities}


def _deferred_disable(disable: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compiler.disable`` whose functions are plain for as long as there is no compiler that could see them."""

    @functools.wraps(disable)
    def deferred(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:  # noqa: FBT001, FBT002 - torch's
        if fn is None:
            return functools.partial(deferred, recursive=recursive, reason=reason)
        if not isinstance(fn, FunctionType) or COMPILER in sys.modules:
            return disable(fn, recursive, reason=reason)
        disabled: list[Callable[..., Any]] = []

        @functools.wraps(fn)
        def call(*arguments: Any, **options: Any) -> Any:
            if COMPILER not in sys.modules:
                return fn(*arguments, **options)
            if not disabled:
                disabled.append(disable(fn, recursive, reason=reason))
            return disabled[0](*arguments, **options)

        return call

    return deferred
