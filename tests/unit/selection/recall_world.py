"""A small shop whose pictures show what titles say: two or three of eight words, as bright blocks of a picture."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shopvision.selection.recall.config import RecallConfig
from tests.unit.selection.clik_world import WORDS, save_encoders, write_picture

PICTURES = 2


@dataclass(frozen=True)
class World:
    """Items with their pictures, and two tiny encoders."""

    items: Path
    images: Path
    text: str
    image: str

    def config(self, **changes: Any) -> RecallConfig:
        """A configuration that learns this world in seconds."""
        return RecallConfig.model_validate(self.sections(**changes))

    def sections(
        self, *, frozen: bool = True, graph: float = 0.0, model: dict[str, Any] | None = None, **train: Any
    ) -> dict[str, dict[str, Any]]:
        settled = {"epochs": 6, "batch_size": 16, "lr": 5e-3, "lr_text": 3e-3, "lr_image": 3e-3, "seed": 3}
        return {
            "data": {"items": str(self.items), "images": str(self.images), "valid_fraction": 0.25},
            "model": {
                "name": "tiny", "text": self.text, "image": self.image, "dimension": 16, "frozen": frozen,
                "max_length": 12, "image_stages": False,  # whose means know nothing of where blocks are
            } | (model or {}),
            "graph": {"weight": graph, "batch": 8},
            "train": settled | train,
        }  # fmt: skip


def make_world(folder: Path, *, titles: int = 64, seed: int = 8, dropout: float = 0.1) -> World:
    """Titles of two or three words; every one has two pictures, its first word as category and its last as a colour."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    combinations = [*itertools.combinations(range(8), 2), *itertools.combinations(range(8), 3)][:titles]
    with (folder / "items.jsonl").open("w") as file:
        for number, words in enumerate(combinations):
            names = [f"{number:03d}-{place}.png" for place in range(PICTURES)]
            for name in names:
                write_picture(folder / "images" / name, words, rng.random(), rng)
            record = {
                "item_id": f"i{number:03d}", "title": " ".join(WORDS[word] for word in words),
                "category": f"all/{WORDS[words[0]]}", "images": [{"file": name} for name in names],
                "attributes": [{"key": "women", "value": WORDS[words[-1]]}],
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    return World(folder / "items.jsonl", folder / "images", *save_encoders(folder, seed=seed, dropout=dropout))
