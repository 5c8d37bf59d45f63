"""Do recall models learn? Titles never seen look for pictures never seen, beside what anyone could fit in the same run.

`make test-quality ARGS="-s tests/quality"` prints the tables of docs/benchmarks/selection-quality.md. No setting was
chosen with the titles that are measured on.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from shopvision.evaluation.bootstrap import bootstrap_interval
from shopvision.evaluation.retrieval_metrics import recall_at
from shopvision.evaluation.text_retrieval import retrieve_pictures
from shopvision.selection.recall.card import load_recall
from shopvision.selection.recall.config import RecallConfig
from shopvision.selection.recall.measure import measure_retrieval
from shopvision.selection.recall.poi_rows import read_poi_rows
from shopvision.selection.recall.predict import RecallModel
from shopvision.selection.recall.train import train_recall
from shopvision.training.pretrained import fetch_image, survey_pictures
from shopvision.training.run import TrainingRun
from tests.quality.frozen import IMAGE, TEXT, door_to, fit_linear_heads, through
from tests.quality.myntra_world import MISS, Product, make_title_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = range(5)
RECALL_AT = (1, 5, 10)
PLAIN, OURS, WITH_GRAPH = "two linear heads", "recall model", "recall model with graph"
SETTINGS: dict[str, Any] = {"epochs": 30, "batch_size": 256, "lr": 2e-3, "select_by": "last"}
GRAPH_WEIGHT = 0.1


@pytest.fixture
def myntra(data: Path, set_environment: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos; features of frozen encoders are shared by the tests of one run."""
    set_environment(SHOPVISION_HOME=str(tmp_path_factory.getbasetemp() / "recall-home"))
    return data / "myntra_fashion"


def write_items(products: Sequence[Product], path: Path) -> Path:
    """Products as the catalogue imports items; what plans ask for are their attributes."""
    with path.open("w", encoding="utf-8") as file:
        for product in products:
            record = {
                "item_id": product["id"], "title": product["productDisplayName"],
                "images": [{"file": product["image"]}],
                "category": "/".join(product[name] for name in ("masterCategory", "subCategory", "articleType")),
                "attributes": [{"key": name, "value": product[name]} for name in MISS],
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    return path


def train(items: Path, images: Path, folder: Path, *, text: str = TEXT, graph: float = 0.0, seed: int = 0) -> Path:
    config = RecallConfig.model_validate(
        {
            "data": {"items": items, "images": str(images), "valid_fraction": 0.02},
            "model": {"text": text, "image": IMAGE},
            "graph": {"weight": graph},
            "train": SETTINGS | {"seed": seed},
        }
    )
    report = train_recall(config, TrainingRun(output=folder))
    assert report is not None
    return report.folder


def photo_features(paths: Sequence[Path], output: Path) -> Tensor:
    """(n, d) unit vectors of photos by the frozen image encoder, kept where trainings keep theirs."""
    run = TrainingRun(output=output)
    with door_to(paths[0].parent) as door:
        survey = survey_pictures(
            [path.resolve().as_uri() for path in paths], fetch_image(IMAGE), run, door, encode=True
        )
    assert survey.readable.all()
    assert survey.features is not None
    return survey.features.take(np.arange(len(paths)))


@torch.inference_mode()
def vectors(folder: Path, texts: Sequence[str], features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of texts, and of pictures from their frozen features."""
    network = load_recall(folder).network
    return RecallModel(folder, device="cpu").encode_texts(texts), network.image.from_features(features).numpy()


@torch.inference_mode()
def plain_features(folder: Path, texts: Sequence[str]) -> Tensor:
    """(n, d) unit vectors of texts, as the frozen text encoder gives them."""
    loaded = load_recall(folder)
    rows = [texts[start : start + 64] for start in range(0, len(texts), 64)]
    parts = [loaded.network.text.features(loaded.tokenizer.encode(some)) for some in rows]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def test_titles_never_seen_find_pictures_never_seen(myntra: Path, tmp_path: Path) -> None:
    seen, unseen = make_title_table(myntra, tmp_path / "titles.csv")
    items = write_items(seen, tmp_path / "items.jsonl")
    photos = photo_features([myntra / one["image"] for one in (*seen, *unseen)], tmp_path)
    features = {"seen": photos[: len(seen)], "unseen": photos[len(seen) :]}
    titles = {name: [one["productDisplayName"] for one in of] for name, of in (("seen", seen), ("unseen", unseen))}
    own = np.arange(len(unseen))
    hits: dict[str, list[np.ndarray]] = {}
    texts: dict[str, Tensor] = {}
    for seed in SEEDS:
        for name, graph in ((OURS, 0.0), (WITH_GRAPH, GRAPH_WEIGHT)):
            folder = train(items, myntra, tmp_path / f"{name}-{seed}", graph=graph, seed=seed)
            found = vectors(folder, titles["unseen"], features["unseen"])
            hits.setdefault(name, []).append(recall_at(*found, own, RECALL_AT))
        texts = texts or {name: plain_features(folder, of) for name, of in titles.items()}
        heads = fit_linear_heads(texts["seen"], features["seen"], dimension=256, rate=1e-3, temperature=0.07, seed=seed)
        with torch.inference_mode():
            fitted = through(heads[0], texts["unseen"]).numpy(), through(heads[1], features["unseen"]).numpy()
        hits.setdefault(PLAIN, []).append(recall_at(*fitted, own, RECALL_AT))
    mean = {name: np.mean(of_seeds, axis=0) for name, of_seeds in hits.items()}
    differences = {
        "ahead by": mean[OURS] - mean[PLAIN],
        "the graph adds": mean[WITH_GRAPH] - mean[OURS],
    }
    bounds = {name: bootstrap_interval(values) for name, values in (mean | differences).items()}
    _show(
        ["", *(f"R@{k}" for k in RECALL_AT)],
        [[name, *_cells(values, *bounds[name])] for name, values in (mean | differences).items()],
    )
    by_seed = np.array([w.mean(axis=0) - o.mean(axis=0) for w, o in zip(hits[WITH_GRAPH], hits[OURS], strict=True)])
    _show(["the graph adds, seed by seed", *(f"R@{k}" for k in RECALL_AT)], [
        [str(seed), *(f"{value:+.3f}" for value in row)] for seed, row in zip(SEEDS, by_seed, strict=True)
    ])  # fmt: skip
    assert (bounds["ahead by"][0] > 0).all()  # beyond chance, at every cut-off


def test_another_shop_without_retraining(myntra: Path, data: Path, tmp_path: Path) -> None:
    seen, _ = make_title_table(myntra, tmp_path / "titles.csv")
    folder = train(write_items(seen, tmp_path / "items.jsonl"), myntra, tmp_path / "run")
    luma = data / "magento_luma"
    items = [json.loads(line) for line in (luma / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    features = photo_features([luma / "images" / item["images"][0]["file"] for item in items], tmp_path)
    rows = []
    for form in ("title", "title and colour", "category and colour"):
        right: dict[str, list[int]] = {}
        for row, item in enumerate(items):
            right.setdefault(_text(item, form), []).append(row)
        found = retrieve_pictures(*vectors(folder, list(right), features), list(right.values()), RECALL_AT)
        measured = measure_retrieval(found, RECALL_AT)
        cells = [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in measured.values()]
        rows += [[f"{form}, {len(right)} texts", *cells]]
        rows += [["chance", *(f"{one.random:.3f}" for one in measured.values())]]
        for name, one in measured.items():
            assert one.low > one.random, (form, name)
    _show(["", *measured], rows)


def _text(item: dict[str, Any], form: str) -> str:
    """What the other shop's items are asked for by."""
    audience, _, kind = item["category"].partition("/")
    return {
        "title": item["title"],
        "title and colour": f"{item['title']} {item['colour']}",
        "category and colour": f"{audience} {item['colour']} {kind.rpartition('/')[2]}",
    }[form]


def test_a_chinese_place_among_photos_of_it(myntra: Path, data: Path, tmp_path: Path) -> None:
    """A model of an English fashion shop with a text encoder of 100 languages; reported whatever it is."""
    seen, _ = make_title_table(myntra, tmp_path / "titles.csv")
    items = write_items(seen, tmp_path / "items.jsonl")
    model = RecallModel(train(items, myntra, tmp_path / "run", text="wheel:e5-small"), device="cpu")
    chinese = data / "chinese_items"
    with (chinese / "putuo_golden_scores.csv").open(encoding="utf-8") as file:
        golden = {name: float(score) for name, score in csv.reader(file)}
    photos = [chinese / "putuo" / name for name in golden]
    names = sorted({row.name for row in read_poi_rows(chinese / "fliggy_poi_image_recall_500x10.csv").rows})
    scores = model.scores(["普陀山", *names], photos)
    found = scipy.stats.spearmanr(scores[0], list(golden.values()))
    ranks = (scores[1:] > scores[0]).sum(axis=0) + 1
    texts = model.encode_texts(names)
    nearest = (texts @ texts.T - 2 * np.eye(len(names))).argmax(axis=1)
    rows = [
        ["rank correlation with the published scores", f"{found.statistic:.3f} (p {found.pvalue:.2f})"],
        ["median rank of 普陀山 among 497 names, by photo", f"{np.median(ranks):.0f}"],
        *([names[at], names[nearest[at]]] for at in range(0, len(names), len(names) // 8)),
    ]
    _show(["", ""], rows)
    assert np.isfinite(found.statistic)


def _cells(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[str]:
    return [f"{v:.3f} ({a:.3f} to {b:.3f})" for v, a, b in zip(values.mean(axis=0), low, high, strict=True)]


def _show(header: list[str], rows: list[list[str]]) -> None:
    """A table in Markdown, seen with ``pytest -s``."""
    lines = [header, ["---"] * len(header), *rows]
    sys.stdout.write("\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
