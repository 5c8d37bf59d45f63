"""A network that runs compiled as soon as there is a package of it, and eagerly until then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import structlog
import torch
from torch import Tensor, nn

from shopvision.encoders.compiled.agreement import disagreement
from shopvision.encoders.compiled.background import makes_packages
from shopvision.encoders.compiled.inputs import InputSpec, example, fit
from shopvision.encoders.compiled.key import PackageKey, key_of
from shopvision.encoders.compiled.library import BrokenLibraryError
from shopvision.encoders.compiled.maker import CompiledPackages
from shopvision.encoders.fitting_batches import is_out_of_memory
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from pathlib import Path

    from shopvision.encoders.compiled.library import CompiledLibrary

log = structlog.get_logger(__name__)

CompileMode = Literal["auto", "never", "always"]
Way = Literal["eager", "compiled"]

LOOK_EVERY_SECONDS = 5.0


class CompiledModule:
    """Called as the module is, with tensors; gives what the module gives. Not safe for threads.

    A package is taken up after the first call whose tensors fit it, if on these it agrees with the module
    (``agreement``). Calls with other tensors stay eager.

    Attributes:
        module: the eager network.
        way: how the next tensors that fit will run.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Sequence[InputSpec],
        *,
        part: str,
        device: torch.device,
        dtype: torch.dtype,
        mode: CompileMode = "auto",
    ) -> None:
        """Take a module that will not change any more.

        Args:
            module: in evaluation mode, on ``device``. Positional tensors in; tensors out, also in tuples and dicts.
            inputs: what a package of it takes.
            part: of the model, for logs: ``image encoder``.
            device: where it runs.
            dtype: what it computes in.
            mode: ``auto`` takes the package that is there, and in a worker has one made meanwhile; ``always`` makes it
                and waits for it, in any process; ``never`` is eager. ``SHOPVISION_FAST_PATHS=false`` means ``never``.
        """
        self.module = module
        self._inputs = tuple(inputs)
        self._part, self._device, self._dtype = part, device, dtype
        self._mode: CompileMode = mode if get_settings().fast_paths else "never"
        self._packages = CompiledPackages(get_settings().home)
        self._key: PackageKey | None = None
        self._library: CompiledLibrary | None = None
        self._looks = self._mode != "never"
        self._next_look = 0.0

    @property
    def way(self) -> Way:
        """See the class."""
        return "eager" if self._library is None else "compiled"

    @property
    def key(self) -> PackageKey:
        """Of its package."""
        if self._key is None:
            self._key = key_of(self.module, self._inputs, part=self._part, device=self._device, dtype=self._dtype)
        return self._key

    def fits(self, *tensors: Tensor) -> bool:
        """Whether a package would take these tensors."""
        return fit(self._inputs, tensors, self._device.type)

    def __call__(self, *tensors: Tensor) -> Any:
        """What the module makes of the tensors.

        Raises:
            RuntimeError: whatever the module raises; out of memory also where it runs compiled.
        """
        if self._library is not None and self.fits(*tensors):
            try:
                return self._library(*tensors)
            except BrokenLibraryError as error:
                if is_out_of_memory(error):
                    raise
                self._give_up(str(error))
        result = self.module(*tensors)
        if self._looks and self._library is None and self.fits(*tensors):
            self._look(tensors, result)
        return result

    def make(self) -> str | None:
        """Have the package made, if it is not there, and wait; the next call that fits takes it up.

        Returns:
            Why there is none; None where there is.

        Raises:
            OSError: the folder of packages cannot be written to.
        """
        reason = self._packages.make(self.key, self.module, self._device)
        self._looks, self._next_look = reason is None and self._mode != "never", 0.0
        return reason

    def package(self) -> CompiledLibrary | None:
        """The package alone, to be called with tensors that fit; None where there is none."""
        return self._packages.load(self.key, self._device)

    @property
    def place(self) -> Path:
        """Where the package lies, if there is one."""
        return self._packages.place(self.key)

    def examples(self) -> list[Tensor]:
        """Tensors that fit, on the module's device."""
        return [tensor.to(self._device) for tensor in example(self._inputs)]

    def _look(self, tensors: Sequence[Tensor], result: Any) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_SECONDS
        making = self._mode == "always" or makes_packages()
        if not making and self._packages.is_empty():
            return  # a process that only takes what is there need not read every weight to learn that nothing is
        library = self._packages.load(self.key, self._device)
        if library is None:
            if reason := self._packages.refusal(self.key):
                self._looks = False
                log.info("model stays as it is, not compiled", part=self._part, reason=reason)
            elif self._mode == "always":
                self._make_now(tensors, result)
            elif making:
                self._packages.request(self.key, self.module, self._device)
            return
        self._take_up(library, tensors, result)

    def _make_now(self, tensors: Sequence[Tensor], result: Any) -> None:
        try:
            reason = self.make()
        except OSError as error:
            log.warning("compiled models cannot be kept", reason=str(error))
            self._looks = False
            return
        if reason is None and (library := self.package()):
            self._take_up(library, tensors, result)

    def _take_up(self, library: CompiledLibrary, tensors: Sequence[Tensor], result: Any) -> None:
        try:
            difference = disagreement(result, library(*tensors), self.key.dtype)
        except BrokenLibraryError as error:
            difference = str(error)
        if difference is None:
            self._library = library
            log.info("model runs compiled", part=self._part)
        else:
            self._give_up(f"its results differ from the network's: {difference}")

    def _give_up(self, reason: str) -> None:
        self._library, self._looks = None, False
        self._packages.refuse(self.key, reason)
