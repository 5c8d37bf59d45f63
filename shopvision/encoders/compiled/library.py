"""A compiled network: the shared library that torch's ahead-of-time compiler makes, called through its C interface.

torch's own loader unpacks each package anew into the folder of temporary files, where it stays when a process is
killed, and holds the interpreter's lock while the network runs, so that meanwhile no other thread decodes a picture.
The interface is that of torch's header ``torch/csrc/inductor/aoti_runtime/interface.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C import _aoti
from torch.utils import _pytree as pytree

_Pointer = ctypes.c_void_p


class BrokenLibraryError(RuntimeError):
    """The library cannot be loaded, or fails when it runs."""


def _capsule_functions() -> tuple[Any, Any]:
    """Pointer of a capsule, capsule of a pointer; torch passes its tensors' handles in capsules without a name."""
    pointer, capsule = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
    pointer.restype, pointer.argtypes = _Pointer, [ctypes.py_object, ctypes.c_char_p]
    capsule.restype, capsule.argtypes = ctypes.py_object, [_Pointer, ctypes.c_char_p, _Pointer]
    return pointer, capsule


class CompiledLibrary:
    """Tensors to what the network returns. Threads may call it at the same time; they take turns inside.

    The tensors must fit what it was compiled for (``inputs.fit``): nothing is checked here.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load the library.

        Args:
            path: trusted; its code runs in this process.
            device: where it will run.

        Raises:
            BrokenLibraryError: it is none of torch's, or not for this machine.
        """
        self._device = device
        try:
            self._functions = ctypes.CDLL(str(path))  # a CDLL lets go of the interpreter's lock during each call
            self._container = _Pointer()
            self._call(
                "AOTInductorModelContainerCreateWithDevice",
                ctypes.byref(self._container), ctypes.c_size_t(1), str(device).encode(), None,
            )  # fmt: skip
            inputs, outputs = ctypes.c_char_p(), ctypes.c_char_p()
            self._call(
                "AOTInductorModelContainerGetCallSpec",
                self._container, ctypes.byref(inputs), ctypes.byref(outputs),
            )  # fmt: skip
            count = ctypes.c_size_t()
            self._call("AOTInductorModelContainerGetNumOutputs", self._container, ctypes.byref(count))
            self._output_count = count.value
            self._output_spec = pytree.treespec_loads((outputs.value or b"").decode())
        except (OSError, AttributeError, ValueError) as error:
            raise BrokenLibraryError(f"{type(error).__name__}: {error}") from None
        self._pointer, self._capsule = _capsule_functions()

    def __call__(self, *tensors: Tensor) -> Any:
        """What the network returns, in its own shape: a tensor, or tuples, lists and dicts of tensors.

        Raises:
            BrokenLibraryError: it failed; out of memory, for one.
        """
        handles = _aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
        inputs = (_Pointer * len(tensors))(*(self._pointer(handle, None) for handle in handles))
        outputs = (_Pointer * self._output_count)()
        stream = None
        if self._device.type == "cuda":
            stream = _Pointer(torch.cuda.current_stream(self._device).cuda_stream)
        self._call(
            "AOTInductorModelContainerRun",
            self._container, inputs, ctypes.c_size_t(len(tensors)), outputs, ctypes.c_size_t(self._output_count),
            stream, None,
        )  # fmt: skip
        found = _aoti.alloc_tensors_by_stealing_from_void_ptrs(
            [self._capsule(pointer, None, None) for pointer in outputs]
        )
        return pytree.tree_unflatten(found, self._output_spec)

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._functions, name)(*arguments) == 0:
            return
        message = ctypes.c_char_p()
        self._functions.AOTInductorGetLastError(ctypes.byref(message))
        text = (message.value or b"it says nothing").decode(errors="replace").strip()
        raise BrokenLibraryError(f"{name}: {text.splitlines()[0] if text else 'it says nothing'}")

    def __del__(self) -> None:
        if getattr(self, "_container", None):
            self._functions.AOTInductorModelContainerDelete(self._container)


def outputs_of(result: Sequence[Any] | Any) -> list[Tensor]:
    """The tensors of what a network returns, in order."""
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
