"""Unit tests open no sockets."""

from __future__ import annotations

import pytest
import torch
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_sockets() -> object:
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models compute in float32, whatever else the processor has: for numbers that bfloat16 would round."""
    monkeypatch.setattr("shopvision.encoders.devices.best_precision", lambda _: torch.float32)
