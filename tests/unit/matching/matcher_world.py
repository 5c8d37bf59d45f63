"""A small shop that every family of matchers can learn: a band for a watch is not the watch, and looks otherwise.

Each pair has two items of its own. Offers of one product have the same words in another order, and pictures of the same
blocks; where the second offer is a band, its title says so and its picture shows something else.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from transformers import BertConfig, BertModel

from shopvision.matching.fitting.config import MatcherConfig
from tests.unit.matching.tiny_matcher import BERT, tiny_tokenizer

BRANDS, KINDS, COLOURS, SIZES = ("apple", "nike"), ("watch", "shoe"), ("red", "blue"), ("1", "2", "3")
PAIRS = 150
FAMILIES = (
    "text_one_tower", "text_two_tower", "image_two_tower", "text_image_one_tower", "text_image_two_tower",
    "text_fields_one_tower", "text_cnn",
)  # fmt: skip
# What of [model] and [text] is not as of the other families.
MODELS: dict[str, dict[str, Any]] = {
    "text_fields_one_tower": {"fields": {"title": 24, "attributes": 16, "category": 8}},
}
TEXTS: dict[str, dict[str, Any] | None] = {"image_two_tower": None, "text_fields_one_tower": {}, "agreement": {}}


@dataclass(frozen=True)
class World:
    """Items with pictures, labelled pairs, and two tiny encoders."""

    items: Path
    pairs: Path
    images: Path
    text: str
    image: str

    def config(self, family: str = "text_one_tower", **changes: Any) -> MatcherConfig:
        """A configuration that learns this world in seconds."""
        return MatcherConfig.model_validate(self.sections(family, **changes))

    def encoders(self, family: str) -> dict[str, str]:
        sources = {"text": self.text, "image": self.image}
        return {name: source for name, source in sources.items() if name in family}

    def sections(
        self,
        family: str = "text_one_tower",
        *,
        data: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        **train: Any,
    ) -> dict[str, dict[str, Any]]:
        settled = {
            "epochs": 8, "batch_size": 8, "lr": 3e-3, "lr_head": 3e-3, "precision": "float32", "seed": 3,
        }  # fmt: skip
        sections = {
            "data": {
                "pairs": str(self.pairs), "items": str(self.items), "images": str(self.images),
                "fractions": [0.6, 0.4, 0.0],
            } | (data or {}),
            "model": {"name": "tiny", "family": family, **self.encoders(family), **MODELS.get(family, {})}
            | (model or {}),
            "train": settled | train,
        }  # fmt: skip
        usual = TEXTS.get(family, {"max_length": 40})
        if usual is not None:
            sections["text"] = usual | (text or {})
        return sections


def make_world(folder: Path, *, pairs: int = PAIRS, seed: int = 8) -> World:
    rng = np.random.default_rng(seed)
    images = folder / "images"
    images.mkdir(parents=True)
    products = list(itertools.product(BRANDS, KINDS, COLOURS, SIZES))
    items, labelled = [], []
    for number in range(pairs):
        brand, kind, colour, size = products[number % len(products)]
        label = int(number % 3 == 0)
        band = [] if label else ["band"]
        other = products[number % len(products)] if label else products[(number + 7) % len(products)]
        offers = (
            (f"a{number}", [brand, kind, colour], (brand, kind, colour, size)),
            (f"b{number}", [colour, kind, *band, brand], other),
        )
        for item_id, words, shown in offers:
            items.append({
                "item_id": item_id, "title": " ".join(words), "category": kind, "image": f"{item_id}.png",
                "attributes": [{"key": "size", "value": size}] * (number % 2),
            })  # fmt: skip
            write_picture(images / f"{item_id}.png", shown, rng)
        labelled.append(f"a{number},b{number},{label}")
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "pairs.csv").write_text("left_item_id,right_item_id,label\n" + "\n".join(labelled) + "\n")
    save_encoders(folder, seed)
    return World(
        folder / "items.jsonl", folder / "pairs.csv", images, f"local-dir:{folder / 'text'}",
        f"local-dir:{folder / 'image'}",
    )  # fmt: skip


def save_encoders(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = {key: value for key, value in BERT.items() if key != "model_type"}
    text = BertModel(
        BertConfig(**config, initializer_range=0.3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        add_pooling_layer=False,
    )
    text.save_pretrained(folder / "text")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder / "text")
    network = timm.create_model("test_resnet", num_classes=3)
    network.pretrained_cfg["input_size"] = (3, 32, 32)
    timm.models.save_for_hf(network, folder / "image", safe_serialization=True)


def write_picture(path: Path, product: tuple[str, ...], rng: np.random.Generator) -> None:
    """Eight blocks, one column of two for each of brand, kind, colour and size."""
    blocks = np.full((2, 4), 40.0)
    for column, (word, words) in enumerate(zip(product, (BRANDS, KINDS, COLOURS, SIZES), strict=True)):
        blocks[:, column] = np.linspace(40, 220, len(words))[words.index(word)], 130
    pixels = np.kron(blocks, np.ones((16, 8)))[..., None] + rng.normal(0, 4, (32, 32, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
