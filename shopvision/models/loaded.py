"""Models that this process has loaded: each is loaded once, however many ask, and kept within a budget of memory.

Loading costs seconds, a chunk of work or a query not much more.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from shopvision.cycle_search import without_cycle_search
from shopvision.models.kinds import Precision, all_roles, find_kind
from shopvision.models.registry import find, local_copy
from shopvision.models.serving import active
from shopvision.models.version_folder import files_of, read_card
from shopvision.settings import get_settings

log = structlog.get_logger(__name__)


class _Key(NamedTuple):
    """``cache`` is where its files lie: other settings may know another model by the same name."""

    cache: Path
    spec: str
    device: str | None
    precision: Precision


@dataclass
class _Entry:
    """A model that is loaded or being loaded, and how much of the budget it takes; 0 until that is known."""

    model: Future[Any] = field(default_factory=Future)
    size: int = 0


class LoadedModels:
    """Models by version, device and precision. Safe for threads; the models themselves may not be."""

    def __init__(self) -> None:
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, spec: str, *, device: str | None = None, precision: Precision = "auto") -> Any:
        """The model of the version ``spec``; see the function ``load``."""
        key = _Key(get_settings().cache_dir, spec, device, precision)
        with self._lock:
            entry = self._entries.get(key)
            first = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry()
            self._entries.move_to_end(key)
        if first:
            self._fill(key, entry)
        return entry.model.result()

    def now(self) -> list[Any]:
        """What is loaded, in the order of its last use."""
        with self._lock:
            entries = [entry.model for entry in self._entries.values()]
        return [model.result() for model in entries if model.done() and model.exception() is None]

    def _fill(self, key: _Key, entry: _Entry) -> None:
        try:
            ref = find(key.spec)
            folder = local_copy(ref)
            self._make_room(entry, sum((folder / file).stat().st_size for file in files_of(folder)))
            # The first model of a process imports torch and what stands on it: a fifth of that would be the search.
            with without_cycle_search():
                model = find_kind(ref.card.kind).load(folder, device=key.device, precision=key.precision)
            entry.model.set_result(model)
        # Whoever waits must hear of it, and the next one tries again.
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            with self._lock:
                del self._entries[key]
            entry.model.set_exception(error)

    def _make_room(self, entry: _Entry, size: int) -> None:
        """Let go of what was not used for longest, before the new one takes memory."""
        budget, dropped = get_settings().loaded_models_bytes, []
        with self._lock:
            entry.size = size
            idle = [key for key, one in self._entries.items() if one is not entry and one.model.done()]
            while idle and sum(one.size for one in self._entries.values()) > budget:
                dropped.append(idle.pop(0))
                del self._entries[dropped[-1]]
        if dropped:
            log.info("models let go", models=[key.spec for key in dropped], budget_bytes=budget)
            _give_memory_back()


def _give_memory_back() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


_models = LoadedModels()


def loaded_models() -> list[Any]:
    """Every model that this process has loaded by its version, in the order of their last use."""
    return _models.now()


def load(model: str | Path, *, device: str | None = None, precision: Precision = "auto") -> Any:
    """A model as its kind loads it; a model version comes from memory where this process has it.

    Models together take at most ``SHOPVISION_LOADED_MODELS_BYTES``, counted by the size of their files; those that were
    not used for longest go first. The one asked for is loaded whatever its size.

    Args:
        model: a version, ``name:tag``; a role, whose active version is meant; or the folder of a model version, as a
            training leaves it, which is read anew each time and needs no database.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
        precision: what it computes in; ``auto`` takes the fastest that the device has.

    Raises:
        UserError: no such version, role, folder or device, or a card that builds nothing.
        JobError: the role is empty, the files are missing or damaged, or the weights do not fit.
        TransientError: database or object storage is away for the moment.
    """
    if isinstance(model, Path):
        return find_kind(read_card(model).kind).load(model, device=device, precision=precision)
    spec = active(model).spec if model in all_roles() else model
    return _models.load(spec, device=device, precision=precision)
