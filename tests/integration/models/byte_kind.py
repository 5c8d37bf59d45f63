"""A kind of model without networks: bytes. For processes that must start fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shopvision.models.kinds import ModelKind


class ByteKind(ModelKind):
    name = "bytes"
    roles = ("bytes",)

    def load(self, folder: Path, *, device: str | None = None, precision: str = "auto") -> Any:
        return (folder / "data").read_bytes()


KINDS = (ByteKind(),)
