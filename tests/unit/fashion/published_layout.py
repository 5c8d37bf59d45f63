"""A small conditional DETR as transformers 4.48 saves it: names, configuration and outputs were recorded there.

Weights are computed from the tensors' names, so that none need to be kept.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECORD = Path(__file__).with_name("conditional_detr_4_48.json")


def weights(name: str, shape: list[int]) -> NDArray[np.float32]:
    """The values of one tensor."""
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    values = generator.standard_normal(shape).astype(np.float32)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.1 * np.abs(values)
    return values * np.float32(0.1 if len(shape) < 2 else 1.5 / np.sqrt(np.prod(shape[1:])))


def pixels() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two normalised pictures (2, 3, 64, 96), the second one padded, and their mask."""
    values = np.random.default_rng(7).standard_normal((2, 3, 64, 96)).astype(np.float32)
    mask = np.ones((2, 64, 96), np.int64)
    mask[1, 48:], mask[1, :, 80:] = 0, 0
    return values * mask[:, None].astype(np.float32), mask


def save(folder: Path, record: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the checkpoint; returns the record with the outputs ``logits`` and ``pred_boxes`` of version 4.48."""
    from safetensors.numpy import save_file

    record = record or json.loads(RECORD.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(record["config"]))
    (folder / "preprocessor_config.json").write_text(json.dumps(record["preprocessor"]))
    tensors = {name: weights(name, shape) for name, shape in record["shapes"].items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return record
