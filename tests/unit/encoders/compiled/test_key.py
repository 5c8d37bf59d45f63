"""Whatever a compiled network depends on changes the name of its package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from shopvision.encoders.compiled import key as keys
from shopvision.encoders.compiled.inputs import Free, InputSpec, export_shapes, fit
from shopvision.encoders.compiled.key import key_of

CPU = torch.device("cpu")
INPUTS = (InputSpec("uint8", (Free("batch", 2, 8), 4)),)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2)
        self.factor, self.window = 2.0, (3, 4)
        self.register_buffer("shift", torch.zeros(2))


def name(module: nn.Module, inputs: tuple[InputSpec, ...] = INPUTS, **changes: Any) -> str:
    asked: dict[str, Any] = {"part": "encoder", "device": CPU, "dtype": torch.float32, **changes}
    return key_of(module, inputs, **asked).name


def test_the_same_network_has_the_same_key() -> None:
    assert name(Scaled()) == name(Scaled()) == name(Scaled().train())


def changed(**attributes: Any) -> Scaled:
    module = Scaled()
    for attribute, value in attributes.items():
        setattr(module, attribute, value)
    return module


def test_anything_else_has_another() -> None:
    weights, buffer = Scaled(), Scaled()
    weights.layer.weight.data[1, 3] += 1e-7
    buffer.shift[1] = 1
    names = {
        name(Scaled()), name(weights), name(buffer), name(changed(factor=3.0)), name(changed(window=(4, 3))),
        name(Scaled().to(torch.bfloat16)), name(nn.Sequential(Scaled())), name(changed(layer=nn.Bilinear(4, 2, 2))),
        name(Scaled(), part="other"), name(Scaled(), dtype=torch.bfloat16),
        name(Scaled(), (InputSpec("uint8", (8, 4)),)),
        name(Scaled(), (InputSpec("uint8", (Free("batch", 2, 9), 4)),)),
        name(Scaled(), (InputSpec("int64", (Free("batch", 2, 8), 4)),)),
    }  # fmt: skip
    assert len(names) == 13


def test_another_machine_or_torch_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name(Scaled())}
    capabilities = torch.cpu.get_capabilities()
    for place, attribute, value in (
        (torch, "get_num_threads", lambda: 99),
        (torch, "__version__", "2.13.9"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "AVX1024"),
        (torch.cpu, "get_capabilities", lambda: {**capabilities, "amx_fp4": True}),
        (keys, "_digest_of_files", lambda _: "other code"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, attribute, value)
            names.add(name(Scaled()))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    names.add(name(Scaled()))
    assert len(names) == 7


def test_which_tensors_fit() -> None:
    side = Free("side", 32, 96, 32)
    specs = [InputSpec("float32", (2, side, side)), InputSpec("int64", (side,))]
    square, count = torch.zeros(2, 64, 64), torch.zeros(64, dtype=torch.int64)
    assert fit(specs, [square, count], "cpu")
    for tensors in (
        [square], [square, count[:32]], [square[:, :, :32].contiguous(), count], [square[:1], count],
        [torch.zeros(2, 65, 65), torch.zeros(65, dtype=torch.int64)],
        [torch.zeros(2, 128, 128), torch.zeros(128, dtype=torch.int64)],
        [square.transpose(0, 2).contiguous().transpose(0, 2), count], [square.double(), count],
    ):  # fmt: skip
        assert not fit(specs, tensors, "cpu")
    assert not fit(specs, [square, count], "cuda")


@pytest.mark.parametrize("wrong", [("a", 1, 8), ("a", 8, 8), ("a", 30, 96, 32), ("a", 32, 90, 32)])
def test_impossible_dimensions_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="dimension a"):
        Free(*wrong)


def test_shapes_as_the_exporter_takes_them() -> None:
    shapes = export_shapes([InputSpec("float32", (2, Free("side", 32, 96, 32))), InputSpec("int64", (5,))])
    assert [list(axes) for axes in shapes] == [[1], []]
