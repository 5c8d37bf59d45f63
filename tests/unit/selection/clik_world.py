"""A small shop that a ranker can learn: what a topic says shows in its pictures, and taste depends on the topic.

A topic is two or three of eight words. Its pictures are 4 x 2 blocks, those of its words bright. Pictures are tinted
from blue to red: topics of the word "summer" sell the red ones, all others the blue ones.
"""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from transformers import BertConfig, BertModel

from shopvision.selection.clik.config import ClikConfig
from tests.unit.selection.tiny_clik import BERT, tiny_tokenizer

WORDS = ("summer", "autumn", "dress", "shoe", "linen", "sale", "women", "men")
PRODUCTS = 10
RANDOM_MRR = sum(1 / rank for rank in range(1, PRODUCTS + 1)) / PRODUCTS


@dataclass(frozen=True)
class World:
    """A table with its pictures, and two tiny encoders."""

    table: Path
    images: Path
    text: str
    image: str

    def config(self, *, frozen: bool = True, **train: Any) -> ClikConfig:
        """A configuration that learns this world in seconds."""
        return ClikConfig.model_validate(self.sections(frozen=frozen, **train))

    def sections(self, *, frozen: bool = True, **train: Any) -> dict[str, dict[str, Any]]:
        settled = {
            "epochs": 4, "matching_batch": 12, "groups": 6, "group_size": PRODUCTS, "warmup_fraction": 0.1,
            "lr_text": 3e-3, "lr_image": 3e-3, "text_augmentation": 0.3, "seed": 3,
        }  # fmt: skip
        return {
            "data": {"table": str(self.table), "images": str(self.images), "label": "ctr"},
            "refine": {
                "min_products": PRODUCTS, "candidates": PRODUCTS, "min_positive": 2, "fractions": [0.7, 0.3, 0.0],
            },
            "model": {
                "name": "tiny", "text": self.text, "image": self.image, "feature_dim": 16, "frozen": frozen,
                "season_language": "en",
            },
            "train": settled | train,
        }  # fmt: skip


def make_world(folder: Path, *, topics: int = 60, seed: int = 8, dropout: float = 0.1) -> World:
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    combinations = [*itertools.combinations(range(8), 2), *itertools.combinations(range(8), 3)]
    rows = []
    for number in range(topics):
        words = [WORDS[index] for index in combinations[number]]
        for rank, tint in enumerate(rng.permutation(PRODUCTS) / (PRODUCTS - 1)):
            product = f"{number * PRODUCTS + rank:05d}"
            write_picture(folder / "images" / f"{product}.png", combinations[number], tint, rng)
            liked = tint if "summer" in words else 1 - tint
            rows.append({
                "exhibit_id": f"e{number:03d}", "prod_id": product, "exhibit_name": " ".join(words),
                "exhibit_cat1": "fashion", "prod_name": " ".join(words), "image": f"{product}.png",
                "ctr": round(liked, 3),
            })  # fmt: skip
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return World(folder / "table.csv", folder / "images", *save_encoders(folder, seed=seed, dropout=dropout))


def save_encoders(folder: Path, *, seed: int, dropout: float = 0.1) -> tuple[str, str]:
    """Sources of a tiny text encoder and a tiny image encoder, saved below ``folder``."""
    torch.manual_seed(seed)
    config = {key: value for key, value in BERT.items() if key != "model_type"}
    text = BertModel(
        BertConfig(**config, initializer_range=0.5, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    )
    text.save_pretrained(folder / "text")
    tiny_tokenizer().save_pretrained(folder / "text")
    network = timm.create_model("test_resnet", num_classes=3)
    network.pretrained_cfg["input_size"] = (3, 32, 32)
    timm.models.save_for_hf(network, folder / "image", safe_serialization=True)
    return f"local-dir:{folder / 'text'}", f"local-dir:{folder / 'image'}"


def write_picture(path: Path, words: tuple[int, ...], tint: float, rng: np.random.Generator) -> None:
    blocks = np.full((2, 4), 40.0)
    for word in words:
        blocks[word // 4, word % 4] = 200.0
    grey = np.kron(blocks, np.ones((16, 8)))[..., None] + rng.normal(0, 4, (32, 32, 1))
    pixels = grey + np.array([50.0 * tint, 0.0, 50.0 * (1 - tint)])
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
