"""Does an encoder learn from a shop's own photos? Second views of styles that it has not seen, among all clothes.

`make test-quality ARGS="-s tests/quality/test_garment_encoder_on_luma.py"` prints the table. Every style is unseen in
one of five splits, so each second view of a piece of clothing (back or detail) is asked once, by an encoder that was
trained on the other styles, among the leading photos of all clothes in all their colours; and once more among these and
the clothes of another shop (``myntra_fashion``), which nobody learnt from.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.encoders.image_networks import load_network
from shopvision.evaluation.bootstrap import bootstrap_interval
from shopvision.evaluation.product_retrieval import retrieve
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.encoding.start import project_main_directions
from shopvision.fashion.encoding.train import EncoderReport, train_encoder
from shopvision.images.preprocessing import prepare
from shopvision.models.importers import fetch
from shopvision.models.weights import read_tensors
from shopvision.training.run import TrainingRun
from tests.quality.frozen import IMAGE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * 3600)]

SPLITS, DIMENSION = 5, 128
TRIPLET_RATES = (1e-4, 3e-5)  # of some more that were tried on other splits, the two that serve it best
FROZEN, CONTRASTIVE = "frozen, 1280 numbers", "contrastive, 128"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Shop:
    """Photos of clothes and everything else, and what is asked.

    Attributes:
        features: photo -> (1280,) of the frozen encoder, not normalised.
        items: as in the file.
        split: style -> the split in which it is unseen.
        queries: (photo, item, style) of second views of clothes.
        gallery: (photo, item) of leading photos of clothes.
        strangers: (n, 1280) features of clothes of another shop.
    """

    features: dict[str, Tensor]
    items: list[dict[str, Any]]
    split: dict[str, int]
    queries: list[tuple[str, str, str]]
    gallery: list[tuple[str, str]]
    strangers: Tensor

    def recall(self, split: int, to_vectors: Callable[[Tensor], Tensor]) -> Values:
        """(queries of the split, 2) whether each finds its item first: among the gallery, and with strangers in it."""
        asked = [query for query in self.queries if self.split[query[2]] == split]
        number = {item: row for row, (_, item) in enumerate(self.gallery)}
        products = np.array([number[query[1]] for query in asked])
        shown = self._of([photo for photo, _ in self.gallery])
        with torch.inference_mode():
            questions, answers = (
                functional.normalize(to_vectors(features), dim=1).numpy()
                for features in (self._of([query[0] for query in asked]), torch.cat([shown, self.strangers]))
            )
        numbers = np.arange(len(answers))
        own = retrieve(questions, answers[: len(shown)], products, numbers[: len(shown)], (1,))
        return np.concatenate([own.recall, retrieve(questions, answers, products, numbers, (1,)).recall], axis=1)

    def _of(self, photos: list[str]) -> Tensor:
        return torch.stack([self.features[photo] for photo in photos])

    def training_items(self, split: int) -> list[dict[str, Any]]:
        """Everything whose style is not asked for in the split."""
        return [item for item in self.items if item["images"] and self.split[item["style"]] != split]


def read_shop(luma: Path, myntra: Path, folder: Path) -> Shop:
    """The shop's photos and those of another one through the frozen encoder, and five splits of its styles."""
    items = [json.loads(line) for line in (luma / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    photos = sorted({picture["file"] for item in items for picture in item["images"]})
    card = fetch(IMAGE, folder / "frozen")
    assert card.preprocessing is not None
    assert card.dimension is not None
    encoder = ImageEncoder(
        load_network(folder / "frozen", card), card.preprocessing, card.dimension, device=torch.device("cpu"),
        dtype=torch.float32, compile_mode="never", unit_length=False,
    )  # fmt: skip
    with (myntra / "styles.csv").open(encoding="utf-8") as file:
        others = [myntra / row["image"] for row in csv.DictReader(file) if row["masterCategory"] == "Apparel"]
    paths = [*(luma / photo for photo in photos), *others]
    features = np.concatenate([raw(encoder, paths[start : start + 32]) for start in range(0, len(paths), 32)])
    styles = sorted({item["style"] for item in items})
    order = np.random.default_rng(27).permutation(styles).tolist()
    clothes = [item for item in items if item["images"] and re.match(r"[MW][A-Z]", item["item_id"])]
    return Shop(
        dict(zip(photos, torch.from_numpy(features), strict=False)),
        items,
        {style: place % SPLITS for place, style in enumerate(order)},
        [
            (picture["file"], item["item_id"], item["style"])
            for item in clothes
            for picture in item["images"]
            if picture["suffix"] in {"back", "alt1"}
        ],
        [(item["images"][0]["file"], item["item_id"]) for item in clothes if item["images"][0]["suffix"] == "main"],
        torch.from_numpy(features[len(photos) :]),
    )


@pytest.fixture(scope="module")
def shop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return read_shop(data / "magento_luma", data / "myntra_fashion", tmp_path_factory.mktemp("shop"))


def raw(encoder: ImageEncoder, paths: list[Path]) -> NDArray[np.float32]:
    return encoder.encode(np.stack([prepare(path.read_bytes(), encoder.preprocessing) for path in paths]))


def train(
    shop: Shop, luma: Path, folder: Path, split: int, *, data: dict[str, Any] | None = None, **train: Any
) -> EncoderReport:
    """What default settings learn from the split's other styles."""
    folder.mkdir(parents=True)
    lines = [json.dumps(item) for item in shop.training_items(split)]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {"items": folder / "items.jsonl", "images": str(luma)}
    report = train_encoder(
        EncoderConfig.model_validate({"data": files | (data or {}), "train": train}), TrainingRun(output=folder / "run")
    )
    assert report is not None
    return report


def projection(folder: Path) -> Callable[[Tensor], Tensor]:
    tensors = read_tensors(folder / "model.safetensors")
    return lambda features: functional.linear(features, tensors["projection.weight"], tensors["projection.bias"])


CLASSES = {f"{who}/{what}": what for who in ("Men", "Women") for what in ("Tops", "Bottoms")}


def test_an_encoder_for_each_class_beside_the_common_one(
    shop: Shop,
    data: Path,
    tmp_path: Path,
    set_environment: Callable[..., None],
    record_property: Callable[[str, object], None],
) -> None:
    """Tops and bottoms of styles never seen, each among its own class: told whatever it is."""
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))
    luma = data / "magento_luma"
    class_of = {item["item_id"]: item["category"].split("/")[1] for item in shop.items}
    found: dict[str, list[Values]] = {"own": [], "common": [], "frozen": []}
    styles: list[str] = []
    for split in range(SPLITS):
        classes = {"classes": CLASSES, "per_category": ["Tops", "Bottoms"]}
        run = train(shop, luma, tmp_path / str(split), split, data=classes)
        own = {one.name: projection(one.folder) for one in run.categories}
        for name in ("Tops", "Bottoms"):
            part = replace(
                shop,
                queries=[query for query in shop.queries if class_of[query[1]] == name],
                gallery=[shown for shown in shop.gallery if class_of[shown[1]] == name],
            )
            ways = {"own": own[name], "common": projection(run.folder), "frozen": lambda features: features}
            for way, to_vectors in ways.items():
                found[way].append(part.recall(split, to_vectors)[:, 0])
            styles += [style for _, _, style in part.queries if shop.split[style] == split]
    hits = {way: np.concatenate(several) for way, several in found.items()}
    assert len(hits["own"]) == len(shop.queries)
    sys.stdout.write(
        f"\nrecall@1 among the class: { {way: round(float(one.mean()), 3) for way, one in hits.items()} }\n"
    )
    for other in ("common", "frozen"):
        value, low, high = difference(hits["own"], hits[other], np.array(styles))
        sys.stdout.write(f"one for each class ahead of {other}: {value:+.3f} [{low:+.3f}, {high:+.3f}]\n")
        record_property(f"own minus {other}", f"{value:+.3f} [{low:+.3f}, {high:+.3f}]")
        assert high > 0
    assert low > 0.03


def whitened(shop: Shop, split: int) -> Callable[[Tensor], Tensor]:
    """What the projection starts with."""
    photos = [picture["file"] for item in shop.training_items(split) for picture in item["images"]]
    projection = nn.Linear(1280, DIMENSION)
    project_main_directions(projection, torch.stack([shop.features[photo] for photo in photos]), whiten=True)
    return projection


def test_a_trained_encoder_finds_more_than_the_frozen_one(
    shop: Shop,
    data: Path,
    tmp_path: Path,
    set_environment: Callable[..., None],
    record_property: Callable[[str, object], None],
) -> None:
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))
    luma = data / "magento_luma"
    assert (len(shop.queries), len(shop.gallery), len(shop.strangers)) == (242, 420, 1847)
    ways: dict[str, Callable[[int], Callable[[Tensor], Tensor]]] = {
        FROZEN: lambda _: lambda features: features,
        "start: whitened, 128": lambda split: whitened(shop, split),
        CONTRASTIVE: lambda split: projection(train(shop, luma, tmp_path / f"contrastive-{split}", split).folder),
    }
    for rate in TRIPLET_RATES:
        ways[f"triplet, 128, rate {rate:g}"] = lambda split, rate=rate: projection(
            train(shop, luma, tmp_path / f"triplet-{rate:g}-{split}", split, loss="triplet", lr=rate).folder
        )
    styles = np.array([style for split in range(SPLITS) for _, _, style in shop.queries if shop.split[style] == split])
    tell = sys.stdout.write
    tell("\nrecall@1 of 242 second views among 420 clothes; ahead of the frozen encoder, 95 % interval; by split;\n")
    tell("the same among 420 clothes and 1,847 of another shop\n")
    hits: dict[str, list[Values]] = {}
    harder: dict[str, Values] = {}
    ahead = {}
    for name, way in ways.items():
        both = [shop.recall(split, way(split)) for split in range(SPLITS)]
        found = hits[name] = [one[:, 0] for one in both]
        harder[name] = np.concatenate([one[:, 1] for one in both])
        frozen = hits[FROZEN]
        value, low, high = ahead[name] = difference(np.concatenate(found), np.concatenate(frozen), styles)
        by_split = " ".join(f"{one.mean() - other.mean():+.3f}" for one, other in zip(found, frozen, strict=True))
        recall = float(np.concatenate(found).mean())
        tell(f"{name:30s} {recall:.3f}  {value:+.3f} [{low:+.3f}, {high:+.3f}]  {by_split}")
        value, low, high = difference(harder[name], harder[FROZEN], styles)
        tell(f"  {harder[name].mean():.3f}  {value:+.3f} [{low:+.3f}, {high:+.3f}]\n")
        sys.stdout.flush()
        record_property(name, round(recall, 3))
    triplet = max((name for name in hits if "triplet" in name), key=lambda name: np.concatenate(hits[name]).mean())
    value, low, high = difference(np.concatenate(hits[CONTRASTIVE]), np.concatenate(hits[triplet]), styles)
    tell(f"contrastive ahead of the best triplet: {value:+.3f} [{low:+.3f}, {high:+.3f}]\n")
    record_property("contrastive ahead of triplet", f"{value:+.3f} [{low:+.3f}, {high:+.3f}]")
    assert ahead[CONTRASTIVE][1] > 0.05
    assert all(one.mean() >= other.mean() for one, other in zip(hits[CONTRASTIVE], hits[FROZEN], strict=True))
    assert high > 0  # in-batch contrastive loss is no worse than triplets


def difference(found: Values, other: Values, styles: NDArray[np.str_]) -> tuple[float, float, float]:
    """Mean of the paired differences, and its interval over styles."""
    names, place, counts = np.unique(styles, return_inverse=True, return_counts=True)
    sums = np.bincount(place, found - other, len(names))
    low, high = bootstrap_interval((sums / counts)[:, None], counts[:, None].astype(np.float64))
    return float((found - other).mean()), float(low[0]), float(high[0])
