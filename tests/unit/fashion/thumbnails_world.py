"""Small pictures of one colour each, which is that of their class, with noise."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

COLOURS = {"bag": (200, 40, 40), "dress": (40, 60, 200), "shoes": (60, 180, 60)}


def encoder(folder: Path) -> str:
    """A tiny image encoder with seeded weights, as a source."""
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=7)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return f"local-dir:{folder}"


def draw(path: Path, label: str, generator: np.random.Generator) -> None:
    """A picture of that class."""
    noise = generator.normal(0, 40, (24, 20, 3))
    pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def folders(folder: Path, each: int = 8, seed: int = 0) -> Path:
    """A folder for each class with so many pictures."""
    generator = np.random.default_rng(seed)
    for label in COLOURS:
        for number in range(each):
            draw(folder / label / f"{number}.png", label, generator)
    return folder


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
