"""Every family of pair models on the same pairs, and ``CrossEncoder.predict``: pairs per second and memory.

Encoders are pretrained, what stands on them is random: speed does not depend on what was learnt.
"""

from __future__ import annotations

import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Table, progress
from benchmarks.pair_scoring import CROSS_ENCODER, save_models
from benchmarks.pair_scoring_baselines import measure

ITEMS, QUICK_ITEMS = 2_000, 40
PAIRS, QUICK_PAIRS = 10_000, 60
REPETITIONS = 2
ATTRIBUTES = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")
MAX_LENGTH = 128


def run(*, quick: bool) -> list[Table]:
    """Every family in turns."""
    items, pairs = (QUICK_ITEMS, QUICK_PAIRS) if quick else (ITEMS, PAIRS)
    table = Table(
        "Families of pair models",
        f"{pairs:,} random pairs of {items:,} items with titles, {len(ATTRIBUTES)} attributes and photos of 224 x 224, "
        "in one process as a chunk of the job works, means of interleaved repetitions; models are loaded and warm. "
        "MiniLM and EfficientNet-Lite0. *items*: seconds for what is kept of items, reading their photos included; "
        "*pairs*: seconds for the pairs then. *ratio*: pairs per second of both together, by those of CrossEncoder."
        "predict with the same texts. One-towers score both orders of a pair, which CrossEncoder does not. *MiB*: of "
        "the model version; *peak MiB*: of the process.",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_items(folder / "items.jsonl", items)
        generator = np.random.default_rng(0)
        left = generator.integers(0, items, pairs)
        right = (left + generator.integers(1, items, pairs)) % items
        np.save(folder / "pairs.npy", np.stack([left, right], axis=1))
        both = zip(left.tolist(), right.tolist(), strict=True)
        (folder / "pairs.json").write_text(json.dumps([[texts[a], texts[b]] for a, b in both]), encoding="utf-8")
        save_models(folder)
        models = make_models(folder)
        table.rows = _rates(folder, models, pairs, repetitions=1 if quick else REPETITIONS)
    return [table]


def picture_folder() -> Path:
    """Of the shop's photos, and the table that names them."""
    from tests.conftest import DATA

    return DATA / "myntra_fashion"


def write_items(path: Path, count: int) -> list[str]:
    """Items of a real shop; returns their texts, as the builder of our texts writes them."""
    from shopvision.items.item_files import read_items
    from shopvision.items.item_texts import TextBuilder

    shop = picture_folder()
    with (shop / "styles.csv").open(encoding="utf-8") as lines, path.open("w", encoding="utf-8") as output:
        for row, _ in zip(csv.DictReader(lines), range(count), strict=False):
            record = {"item_id": row["id"], "title": row["productDisplayName"], "category": row["masterCategory"]}
            record |= {"attributes": {key: row[key] for key in ATTRIBUTES}, "image": row["image"]}
            output.write(json.dumps(record) + "\n")
    builder = TextBuilder("title_attributes")
    built = [builder.item(item) for item in read_items(path, images=str(shop)).values()]
    return [" ".join([text.title, *text.pieces]) for text in built]


def make_models(folder: Path) -> dict[str, Path]:
    """A model version of every family, as the quality test of families has it."""
    from shopvision.items.item_files import read_items
    from shopvision.matching.families.card import save_matcher
    from shopvision.matching.families.pair_model import begin_training
    from shopvision.matching.families.text_reading import TextOptions
    from shopvision.matching.fitting.config import MatcherConfig
    from tests.quality.taught_families import BESIDE, FAMILIES, INFORMED

    items = list(read_items(folder / "items.jsonl", images=str(picture_folder())).values())
    models = {}
    for number, (name, recipe) in enumerate((FAMILIES | {INFORMED: BESIDE[INFORMED]}).items()):
        graph = {"graph": str(_graph(folder))} if name == "pkgm" else {}
        config = MatcherConfig.model_validate({"data": {"pairs": "made.csv"}, "model": recipe["model"] | graph})
        texts = TextOptions() if "fields" in recipe["model"] else TextOptions(max_length=MAX_LENGTH)
        beginning = begin_training(config.model, texts, items, seed=0)
        models[name] = folder / f"family-{number}"
        thresholds = {"same": 0.9, "decision": 0.5, "different": 0.1}
        described: dict[str, Any] = {"calibration": {"method": "none"}, "thresholds": thresholds}
        save_matcher(models[name], beginning.model, name="benchmark", source="seeded head", **described)
    return models


def _graph(folder: Path) -> Path:
    from shopvision.graph.config import GraphConfig
    from shopvision.graph.train import train_graph
    from shopvision.training.run import TrainingRun

    sections = {"data": {"items": folder / "items.jsonl"}, "model": {"dimension": 64}, "train": {"epochs": 1}}
    train_graph(GraphConfig.model_validate(sections), TrainingRun(output=folder / "graph"))
    return folder / "graph" / "model"


def _rates(folder: Path, models: dict[str, Path], pairs: int, *, repetitions: int) -> list[dict[str, object]]:
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in (CROSS_ENCODER, *models)}
    peaks = dict.fromkeys(seconds, 0)
    for _ in range(repetitions):
        for name, found in seconds.items():
            if name == CROSS_ENCODER:
                (took, _scores), peak = measure("cross_encoder", folder, folder / "pairs.json", tuned=False)
                found.append((0.0, took))
            else:
                given = models[name], folder / "items.jsonl", picture_folder(), folder / "pairs.npy"
                took, peak = measure("family", *given, tuned=True)
                found.append((took[0], took[1]))
            peaks[name] = max(peaks[name], peak)
            progress(f"{name}: {found[-1]}, {peak} MiB")
    rows: list[dict[str, object]] = []
    rates = {name: pairs / statistics.mean(map(sum, found)) for name, found in seconds.items()}
    for name, found in seconds.items():
        items, scored = (statistics.mean(column) for column in zip(*found, strict=True))
        place = models.get(name, folder / "theirs")
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 2**20
        rows.append(
            {"family": name, "items": items or None, "pairs": scored, "pairs/s": rates[name],
             "ratio": rates[name] / rates[CROSS_ENCODER], "MiB": round(size), "peak MiB": peaks[name]}
        )  # fmt: skip
    return rows
