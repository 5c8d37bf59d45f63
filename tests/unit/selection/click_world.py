"""A shop whose audience clicks on pictures of the colour that a title names, and a tiny recall model to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shopvision.selection.recall.card import make_sentence_tokenizer, save_recall
from tests.unit.selection.tiny_clik import PREPROCESSING, tiny_tokenizer
from tests.unit.selection.tiny_recall import recall_arguments, tiny_recall

COLOURS = {"summer": (230, 40, 30), "autumn": (30, 60, 220)}
ITEMS = 16


def write_world(folder: Path, seed: int = 3) -> Path:
    """``folder/log.csv``, a click log of items with three pictures each, and ``folder/recall``, a recall model."""
    generator = np.random.default_rng(seed)
    lines = ["item_id,image,clicks,impressions,title,entities"]
    for number in range(ITEMS):
        season, other = list(COLOURS)[number % 2], list(COLOURS)[(number + 1) % 2]
        mixed = tuple((one + two) // 2 for one, two in zip(COLOURS[season], COLOURS[other], strict=True))
        shown = [(COLOURS[season], 0.08), (mixed, 0.04), (COLOURS[other], 0.02)]
        for place in generator.permutation(3).tolist():
            colour, rate = shown[place]
            noise = generator.integers(-20, 20, (32, 32, 3))
            name = f"{number}-{place}.png"
            Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(folder / name)
            clicks = generator.binomial(1000, rate)
            lines.append(f"i{number},{name},{clicks},1000,{season} dress,{'sale|' if number % 3 else ''}{season}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    save_colour_recall(folder / "recall")
    return folder


def save_colour_recall(folder: Path) -> None:
    """A recall model to which the two colours, and the two seasons, lie on either side of its space.

    With random weights alone all inputs are much alike.
    """
    wanted = recall_arguments(image_head="linear")
    network = tiny_recall(wanted)
    pixels = torch.tensor(list(COLOURS.values()), dtype=torch.float32).view(-1, 3, 1, 1).expand(-1, -1, 32, 32)
    tokens = make_sentence_tokenizer(wanted, tiny_tokenizer()).encode([f"{season} dress" for season in COLOURS])
    with torch.no_grad():
        images, texts = network.image.network((pixels / 255 - 0.5) / 0.5), network.text.features(tokens)
        for head, features in ((network.image.head.linear, images), (network.text.head.linear, texts)):
            head.bias.copy_(-head.weight @ features.mean(0))
            head.bias.add_(0.2 * torch.randn_like(head.bias) * (head.weight @ features.diff(dim=0)[0]).std())
    save_recall(folder, network, wanted, tiny_tokenizer(), PREPROCESSING, name="tiny-recall", source="test")
