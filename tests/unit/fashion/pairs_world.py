"""Made pictures of products: a pattern and a colour each, seen in two ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

CATEGORIES = ("bag", "shoes")


def backbone(folder: Path) -> str:
    """The source of a tiny image encoder."""
    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet", num_classes=7)
    network.pretrained_cfg["input_size"] = (3, 48, 48)
    timm.models.save_for_hf(network, folder / "backbone", safe_serialization=True)
    return f"local-dir:{folder / 'backbone'}"


def picture(path: Path, product: int, view: int) -> None:
    """A picture of a product: tiles of its colours; the view moves and shades them."""
    generator = np.random.default_rng(product)
    tiles = generator.integers(0, 256, (4, 4, 3))
    pixels = np.kron(np.roll(tiles, view, axis=1), np.ones((12, 12, 1)))
    noise = np.random.default_rng([product, view]).normal(0, 8, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(path)


def write_pairs(folder: Path, products: int, *, first: int = 0, views: int = 1, **fields: Any) -> Path:
    """``pairs.jsonl``: of every product so many anchors, each in a post of its own, and one positive."""
    rows = []
    for product in range(first, first + products):
        picture(folder / f"{product}-0.png", product, 0)
        for view in range(1, views + 1):
            picture(folder / f"{product}-{view}.png", product, view)
            rows.append(
                {
                    "anchor": f"{product}-{view}.png",
                    "positive": f"{product}-0.png",
                    "category": CATEGORIES[product % 2],
                    "product_id": str(product),
                    "post_id": f"{product}-{view}",
                    **fields,
                }
            )
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_items(folder: Path, items: int, *, per_style: int = 2, pictures: int = 2) -> Path:
    """``items.jsonl``: items of styles, every other one with further pictures."""
    rows = []
    for item in range(items):
        count = pictures if item % 2 else 1
        for view in range(count):
            picture(folder / f"item-{item}-{view}.png", 1000 + item, view)
        rows.append(
            {
                "item_id": f"i{item}",
                "title": "a thing",
                "style": f"s{item // per_style}",
                "category": f"Shop/{CATEGORIES[item // per_style % 2]}/Small",
                "images": [{"file": f"item-{item}-{view}.png"} for view in range(count)],
            }
        )
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
