"""What a process imports that embeds pictures and never compiles."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
import worker
import timm, torch
from torchvision.ops import roi_align
from torchvision.tv_tensors import Image, wrap

def loaded():
    return "torch._dynamo" in sys.modules

# Aligned, half a pixel is taken off: two bins of one pixel each way, whose centres are those of pixels 0 and 1.
regions = roi_align(torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2, 1.0, 1, aligned=True)
assert regions.flatten().tolist() == [0.0, 1.0, 4.0, 5.0], regions
picture = wrap(torch.zeros(3, 2, 2), like=Image(torch.zeros(3, 2, 2)))
assert type(picture) is Image
assert not loaded()

assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") is True
assert loaded()
assert type(wrap(torch.zeros(3, 2, 2), like=picture)) is Image  # now by the compiler's own wrapper
compiling = []

@torch.compiler.disable(recursive=False)
def outside(x):
    compiling.append(torch.compiler.is_compiling())
    return x + 1

compiled = torch.compile(lambda x: outside(x * 2) * 3, backend="eager")
assert compiled(torch.ones(1)).item() == 9
assert compiling == [False]
"""


@pytest.mark.slow
def test_the_compiler_is_imported_when_it_is_needed_and_works() -> None:
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
