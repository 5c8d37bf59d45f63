"""A catalogue that tests make themselves, so that a fresh clone proves what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ITEMS = 121
MOST_PICTURES = 4  # of an item; the next one begins with one again
PICTURES = 301
SIDE = 160  # pixels
PLANS, MEMBERS = 19, 30

GARMENTS = ("hoodie", "jacket", "tee", "tank", "bra", "pants", "shorts", "dress", "backpack", "watch")
COLOURS = ("black", "blue", "green", "grey", "orange", "purple", "red", "white", "yellow")
MATERIALS = ("wool", "cotton", "fleece", "nylon", "mesh", "hemp", "leather")
NAMES = ("Argus", "Breathe", "Chaz", "Diana", "Erika", "Frankie", "Gwyneth", "Hollister", "Ina", "Juno", "Karmen")


def made_picture(rng: np.random.Generator, width: int = SIDE, height: int = SIDE, *, patches: int = 6) -> Image.Image:
    """Another one at each call: rows of so many soft patches of colour."""
    colours = Image.fromarray(rng.integers(0, 256, (patches, patches, 3), dtype=np.uint8))
    return colours.resize((width, height), Image.Resampling.BICUBIC)


def make_catalogue(folder: Path) -> None:
    """Write ``items.jsonl``, ``plans.jsonl`` and ``images/``: always the same, no two pictures alike."""
    rng = np.random.default_rng(7)
    (folder / "images").mkdir(parents=True)
    items = [_item(number) for number in range(ITEMS)]
    for item in items:
        for picture in item["images"]:
            made_picture(rng).save(folder / picture["file"], quality=90)
    _write(folder / "items.jsonl", items)
    _write(folder / "plans.jsonl", [_plan(number, items) for number in range(PLANS)])


def _item(number: int) -> dict[str, Any]:
    garment, colour = GARMENTS[number % len(GARMENTS)], COLOURS[number % len(COLOURS)]
    material, name = MATERIALS[number % len(MATERIALS)], NAMES[number % len(NAMES)]
    item_id = f"{garment}-{number:03}"
    pictures = 1 + number % MOST_PICTURES
    return {
        "item_id": item_id,
        "title": f"{name} {colour} {material} {garment}",
        "category": f"Clothes/{garment.title()}",
        "attributes": [{"key": "color", "value": colour}, {"key": "material", "value": material}],
        "price": 10 + number % 50,
        "currency": "EUR",
        "flags": {"sale": "Yes" if number % 3 == 0 else "No"},
        "images": [{"file": f"images/{item_id}-{picture}.jpg"} for picture in range(pictures)],
    }


def _plan(number: int, items: list[dict[str, Any]]) -> dict[str, Any]:
    colour, garment = COLOURS[number % len(COLOURS)], GARMENTS[number % len(GARMENTS)]
    step = 1 + number % 7
    members = [items[(number * 13 + place * step) % ITEMS]["item_id"] for place in range(MEMBERS)]
    return {
        "plan_id": f"plan-{number:02}",
        "name": f"{colour} {garment} week",
        "desc": f"Everything {colour} for the season",
        "cat1": "Clothes",
        "cat2": garment.title(),
        "kwds": [colour, garment],
        "member_item_ids": members,
    }


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
