"""Recipes of every family of pair models, taught the same pairs; what is finished is kept for the next run.

MiniLM, and EfficientNet-Lite0 as it is; few epochs, so that all families together take half an hour of one core on the
clothing shop's pairs. Nothing was chosen on test pairs.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shopvision.graph.config import GraphConfig
from shopvision.graph.train import train_graph
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import train_matcher
from shopvision.training.run import TrainingRun
from tests.quality.frozen import IMAGE

TITLES = {"builder": "title", "compare_codes": False, "max_length": 48}
ATTRIBUTES = TITLES | {"builder": "title_attributes"}
INFORMED = "text_one_tower, attributes, agreement"
FIELDS = {"builder": "title_attributes", "compare_codes": False}


def _one(family: str, epochs: int, *, text: dict[str, Any] | None = TITLES, **model: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {"model": {"family": family} | model, "train": {"epochs": epochs}}
    return recipe | ({"text": text} if text else {})


def _vectors(family: str, epochs: int, **options: Any) -> dict[str, Any]:
    """Two towers: gentler rates of the head, which compares vectors in every direction."""
    recipe = _one(family, epochs, head="interaction", **options)
    return recipe | {"train": {"epochs": epochs, "lr_head": 3e-4}}


def _soup(recipe: dict[str, Any]) -> dict[str, Any]:
    """Epochs averaged, instead of the best one."""
    return recipe | {"train": recipe["train"] | {"soup": "greedy"}}


def _both(**more: Any) -> dict[str, Any]:
    return {"image": IMAGE} | more


PRETRAINING = {"pretraining": {"epochs": 3}}
FAMILIES: dict[str, dict[str, Any]] = {
    "agreement": _one("agreement", 10, text=None),
    "text_cnn": _one("text_cnn", 15, vocabulary=3_000),
    "gcn": _one("gcn", 20, text=ATTRIBUTES),
    "image_two_tower": _vectors("image_two_tower", 10, text=None, image=IMAGE, projection=512),
    "text_two_tower": _vectors("text_two_tower", 4),
    "text_one_tower": _one("text_one_tower", 3),
    "text_fields_one_tower": _one("text_fields_one_tower", 2, text=FIELDS, fields={"title": 48, "attributes": 64}),
    "pkgm": _one("pkgm", 3, keys=6),
    "text_image_two_tower (begin)": _vectors("text_image_two_tower", 4, **_both(fusion="begin")),
    "text_image_two_tower (end)": _vectors("text_image_two_tower", 4, **_both(fusion="end")),
    "text_image_one_tower": _one("text_image_one_tower", 5, **_both()),
    "coca (sum)": _vectors("coca", 4, **_both(fusion="sum")) | PRETRAINING,
    "coca (cross_attn)": _vectors("coca", 4, **_both(fusion="cross_attn")) | PRETRAINING,
    "k3m": _vectors("k3m", 4, text=ATTRIBUTES, **_both()) | PRETRAINING,
}
# Offers are told apart by codes, which their texts name; families of pictures have nothing to read, and an attribute
# graph of brands alone would tell nothing.
OFFERS = {"max_length": 96}
OF_OFFERS: dict[str, dict[str, Any]] = {
    "agreement": FAMILIES["agreement"],
    "text_cnn": _one("text_cnn", 10, text=OFFERS, vocabulary=8_000),
    "gcn": _one("gcn", 10, text=OFFERS),
    "text_two_tower": _vectors("text_two_tower", 2, text=OFFERS),
    "text_fields_one_tower": _one("text_fields_one_tower", 2, text={}, fields={"title": 64, "description": 64}),
    "text_one_tower": _one("text_one_tower", 2, text=OFFERS),
}
# Measured beside, and no members of the ensembles.
BESIDE: dict[str, dict[str, Any]] = {
    INFORMED: _one("text_one_tower", 3, text=ATTRIBUTES, agreement=True),
    "text_one_tower, attributes": _one("text_one_tower", 3, text=ATTRIBUTES),
    **{
        f"{name}, from pairs alone": {section: fields for section, fields in recipe.items() if section != "pretraining"}
        for name, recipe in FAMILIES.items()
        if "pretraining" in recipe
    },
    "text_image_one_tower, agreement": _one("text_image_one_tower", 5, agreement=True, **_both()),
    "image_two_tower, greedy soup": _soup(FAMILIES["image_two_tower"]),
}
BESIDE_OFFERS: dict[str, dict[str, Any]] = {
    "text_one_tower, agreement": _one("text_one_tower", 2, text=OFFERS, agreement=True),
    "text_cnn, greedy soup": _soup(OF_OFFERS["text_cnn"]),
}


@dataclass(frozen=True)
class Trained:
    """A model and what it cost.

    Attributes:
        folder: model version.
        cpu_seconds: of training, with what is computed once of pictures where that is not kept yet.
        mib: of the model version on disk.
    """

    folder: Path
    cpu_seconds: float
    mib: float


def train(folder: Path, data: dict[str, Any], name: str, recipe: dict[str, Any], seed: int) -> Trained:
    """Train a family, or take what an earlier run has finished with the same recipe in ``folder``.

    Args:
        folder: of all families' runs.
        data: section ``[data]``.
        name: of the model, and of its run.
        recipe: the other sections.
        seed: of the training.
    """
    output = folder / "-".join(re.findall(r"\w+", name))
    finished = output / "finished.json"
    model = recipe["model"] | {"name": output.name}
    if model["family"] == "pkgm":
        model |= {"graph": str(_graph(folder, data["pairs"]))}
    recipe = recipe | {
        "model": model,
        "data": data,
        "train": recipe["train"] | {"seed": seed},
        "thresholds": {"cross_fit": 0},
    }
    config = MatcherConfig.model_validate(recipe)
    told = json.loads(config.model_dump_json())
    kept = json.loads(finished.read_bytes()) if finished.exists() else {}
    if kept.get("recipe") != told:
        if kept:
            shutil.rmtree(output)
        started = time.process_time()
        report = train_matcher(config, TrainingRun(output=output, resume=True))
        assert report is not None
        assert not report.unreadable
        kept = {"recipe": told, "cpu_seconds": time.process_time() - started, "metrics": report.metrics}
        finished.write_text(json.dumps(kept), encoding="utf-8")
    size = sum(file.stat().st_size for file in (output / "model").rglob("*") if file.is_file())
    return Trained(output / "model", kept["cpu_seconds"], size / 2**20)


def _graph(folder: Path, pairs: Path) -> Path:
    """Of the training pairs' items alone."""
    run = TrainingRun(output=folder / "graph", resume=True)
    if not run.model_folder.exists():
        rows = map(json.loads, pairs.read_text(encoding="utf-8").splitlines())
        items = {side["item_id"]: side for row in rows for side in (row["left"], row["right"])}
        listing = folder / "graph_items.jsonl"
        listing.write_text("".join(json.dumps(item) + "\n" for item in items.values()), encoding="utf-8")
        sections = {
            "data": {"items": listing},
            "model": {"dimension": 64},
            "train": {"epochs": 60, "batch_size": 256},
        }
        train_graph(GraphConfig.model_validate(sections), run)
    return run.model_folder
