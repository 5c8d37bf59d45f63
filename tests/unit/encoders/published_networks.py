"""Small networks of the published fashion search as transformers 4.48 saves them: names, shapes, configurations and
outputs were recorded there, in float64.

Weights are computed from the tensors' names, so that none need to be kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.unit.fashion.published_layout import weights

RECORDS = {name: Path(__file__).with_name(f"{name}_4_48.json") for name in ("swin_encoder", "vit_classifier")}


def read_record(name: str) -> dict[str, Any]:
    """``config``, ``preprocessor``, ``shapes``, which of them are index ``buffers``, and the ``outputs``."""
    record: dict[str, Any] = json.loads(RECORDS[name].read_text())
    return record


def pictures() -> NDArray[np.uint8]:
    """The three pictures (3, 32, 32, 3) that the outputs belong to."""
    return np.random.default_rng(7).integers(0, 256, (3, 32, 32, 3), np.uint8)


def tensors(record: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """All tensors of a file, in its names."""
    return {
        name: np.zeros(shape, np.int64) if name in record["buffers"] else weights(name, shape)
        for name, shape in record["shapes"].items()
    }


def save_encoder(folder: Path, record: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the folder of the encoder; returns its record."""
    from safetensors.numpy import save_file

    record = record or read_record("swin_encoder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(record["config"]))
    (folder / "preprocessor_config.json").write_text(json.dumps(record["preprocessor"]))
    save_file(tensors(record), folder / "model.safetensors", metadata={"format": "pt"})
    return record
