"""Does a click ranker learn what an audience likes? On items and pictures never seen, beside what needs no clicks.

`make test-quality ARGS="-s tests/quality"` prints the tables of docs/benchmarks/selection-quality.md. What had to be
chosen was chosen in another world, on training items and training pictures that were held out there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from shopvision.models.version_folder import read_card
from shopvision.selection.click.config import ClickConfig
from shopvision.selection.click.data import ClickData
from shopvision.selection.click.entities import EntityTable, read_entities
from shopvision.selection.click.evaluate import PairScores, Rows, Scores, evaluate_prepared, measure_clicks
from shopvision.selection.click.predict import ImageRanker
from shopvision.selection.click.preparation import Prepared, feature_store, prepare_for
from shopvision.selection.click.sources import ClickSource, read_clicks
from shopvision.selection.click.train import train_click_ranker
from shopvision.selection.clik.card import load_clik
from shopvision.selection.clik.data import read_table
from shopvision.selection.recall.config import RecallConfig
from shopvision.selection.recall.predict import RecallModel
from shopvision.selection.recall.train import train_recall
from shopvision.settings import get_settings
from shopvision.training.features import picture_features
from shopvision.training.run import TrainingRun
from tests.quality.click_audience import SHOPS, Audience, make_audience
from tests.quality.frozen import IMAGE, TEXT, door_to, photo_features, text_features
from tests.quality.myntra_world import Product, two_shops, write_items
from tests.quality.tables import over_seeds, seeds_cell, show
from tests.quality.test_clik_on_myntra import towers
from tests.quality.test_clik_on_myntra import train as train_clik_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

WORLDS = range(5)
RANKER, RECALL, CLIK, REGRESSION = "click ranker", "best by recall", "CLIK without clicks", "pointwise regression"
ALONE, LEFT_OUT, WINNERS = "taught without entities", "entities left out in use", "taught who won (published loss)"
KNOWN, CHANCE = "who knows the rule", "chance"
TESTS, ALL, MRR = METRICS = "A/B tests", "all pairs", "MRR"
SHORT_LISTS = (5, 20, 100)  # pictures that recall passes on
STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # of the regression

Score = Callable[[ClickData], Callable[[Rows, Rows], Scores]]
Found = dict[str, dict[str, float]]


@dataclass(frozen=True)
class World:
    """An audience's files as they are read, and the recall model that everything stands on."""

    source: Path
    recall: Path
    audience: Audience
    table: EntityTable
    test: ClickData
    log: ClickData

    @classmethod
    def read(cls, source: Path, recall: Path, folder: Path, number: int) -> World:
        audience = make_audience(source, folder, number)
        test, log = (
            read_clicks(ClickSource(path, kind, images=str(source)))
            for path, kind in ((audience.test, "pairs"), (audience.log, "clicks"))
        )
        return cls(source, recall, audience, read_entities(audience.entities, images=str(source)), test, log)


@pytest.fixture
def source(data: Path, frozen_home: Path) -> Path:
    assert frozen_home
    return data / "myntra_fashion"


def train_on_titles(source: Path, folder: Path) -> Path:
    """A recall model that knows the training shop."""
    items = write_items(two_shops(source, SHOPS)[0], folder / "items.jsonl")
    config = RecallConfig.model_validate(
        {
            "data": {"items": items, "images": str(source)},
            "model": {"text": TEXT, "image": IMAGE, "dimension": 256},
        }
    )
    report = train_recall(config, TrainingRun(output=folder / "recall"))
    assert report is not None
    return report.folder


def train(world: World, folder: Path, seed: int, model: dict[str, Any] | None = None, **how: Any) -> ImageRanker:
    config = ClickConfig.model_validate(
        {
            "data": {
                "clicks": world.audience.train, "kind": "pairs", "images": str(world.source),
                "entities": world.audience.entities, "entity_images": str(world.source), "fractions": (0.9, 0.1, 0),
            },
            "model": {"recall": "ours", "text": "title", **(model or {})},
            "train": {"epochs": 6, "batch": 256, "lr": 2e-3, "seed": seed, **how},
        }
    )  # fmt: skip
    report = train_click_ranker(config, TrainingRun(output=folder), recall_folder=world.recall)
    assert report is not None
    return ImageRanker(report.folder, device="cpu")


def prepared(world: World, ranker: ImageRanker, folder: Path) -> dict[str, Prepared]:
    """What the ranker sees of the A/B tests, and of all pictures of their items."""
    with door_to(world.source) as door:
        return {
            name: prepare_for(ranker, folder / "model", data, world.table, door)
            for name, data in ((TESTS, world.test), (ALL, world.log))
        }


def evaluated(ranker: ImageRanker, seen: dict[str, Prepared]) -> Found:
    """The ranker, recall, and the ranker without its entities."""
    tests, everything = (evaluate_prepared(ranker, seen[name], resamples=0) for name in (TESTS, ALL))
    assert tests.metrics["consistency"].value == 1
    found = {}
    for name, baseline in ((RANKER, None), (RECALL, "by recall's score"), (LEFT_OUT, "without entities")):
        if baseline is None or baseline in tests.baselines:
            one, other = (of.metrics if baseline is None else of.baselines[baseline] for of in (tests, everything))
            found[name] = {
                TESTS: one["pair_accuracy"].value, ALL: other["pair_accuracy"].value, MRR: other["mrr"].value,
            }  # fmt: skip
    return found


def measured(world: World, score: Score) -> dict[str, float]:
    """Of whoever scores (rows of items, rows of pictures) of a source."""
    tests, everything = (
        measure_clicks(of, PairScores.of(of, score(of)), resamples=0) for of in (world.test, world.log)
    )
    return {
        TESTS: tests["pair_accuracy"].value,
        ALL: everything["pair_accuracy"].value,
        MRR: everything["mrr"].value,
    }


def knows_the_rule(world: World) -> dict[str, float]:
    def score(data: ClickData) -> Callable[[Rows, Rows], Scores]:
        files = [f"images/{uri.rpartition('/')[2]}" for uri in data.pictures]
        return lambda items, pictures: np.array(
            [
                world.audience.fit[data.items[item].title, files[row]]
                for item, row in zip(items, pictures, strict=True)
            ],
            np.float32,
        )  # fmt: skip

    return measured(world, score)


def picture_vectors(world: World, uris: Sequence[str]) -> NDArray[np.float32]:
    """(n, d) by the recall model, kept where rankers keep theirs."""
    tower, card = RecallModel(world.recall, device="cpu"), read_card(world.recall)
    store = feature_store(get_settings().cache_dir / "features", card, tower.dimension, "pictures", "cpu")
    with door_to(world.source) as door:
        features, failures = picture_features(uris, store, tower, door, lambda *_: None)
    assert not failures
    return features.take(np.arange(len(uris))).numpy()


def regression(world: World) -> dict[str, float]:
    """Ridge regression of click rates on the vectors of picture and text and their products; strength by validation."""
    tower = RecallModel(world.recall, device="cpu")

    def inputs(data: ClickData) -> Callable[[Rows, Rows], NDArray[np.float32]]:
        pictures, texts = picture_vectors(world, data.pictures), tower.encode_texts([one.title for one in data.items])

        def of(items: Rows, rows: Rows) -> NDArray[np.float32]:
            products = pictures[rows] * texts[items] * pictures.shape[1] ** 0.5
            return np.concatenate([pictures[rows], texts[items], products], axis=1)

        return of

    learnt = read_clicks(ClickSource(world.audience.train, "pairs", images=str(world.source)))
    shown = learnt.shown
    x, y = inputs(learnt)(shown.items.astype(np.int64), shown.pictures.astype(np.int64)), shown.rates
    held_out = shown.items % 10 == 0
    errors = [
        ((Ridge(alpha=strength).fit(x[~held_out], y[~held_out]).predict(x[held_out]) - y[held_out]) ** 2).mean()
        for strength in STRENGTHS
    ]
    model = Ridge(alpha=STRENGTHS[int(np.argmin(errors))]).fit(x, y)

    def score(data: ClickData) -> Callable[[Rows, Rows], Scores]:
        of = inputs(data)
        return lambda items, rows: model.predict(of(items, rows)).astype(np.float32)

    return measured(world, score)


def clik(world: World, folder: Path, seed: int) -> dict[str, float]:
    """CLIK that learnt the plans' members alone: which pictures show what the title says."""
    tables = world.audience.exhibitions
    model = load_clik(
        train_clik_model(
            tables.train, world.source, "ctr", folder, refine={"min_positive": 5, "min_products": 20},
            stages=True, groups=0, epochs=20, matching_batch=128, text_augmentation=0.8, seed=seed,
        )
    )  # fmt: skip
    table = read_table(tables.test, label="ctr", images=str(world.source))
    topic_of = {exhibition.topic.name: exhibition.topic for exhibition in table.exhibitions}

    def score(data: ClickData) -> Callable[[Rows, Rows], Scores]:
        photos = [world.source / "images" / uri.rpartition("/")[2] for uri in data.pictures]
        topics = text_features(model, [topic_of[item.title] for item in data.items])
        _, queries, pictures = towers(model, topics, photo_features(photos, folder))
        return lambda items, rows: (queries[items] * pictures[rows]).sum(axis=1)

    return measured(world, score)


def leading_pictures(world: World, ranker: ImageRanker, seen: Prepared, library: Sequence[Product]) -> dict[str, float]:
    """How well the picture fits that one stage or both put first among all pictures of the shop; 1 fits best."""
    vectors = picture_vectors(world, [(world.source / one["image"]).resolve().as_uri() for one in library])
    items = seen.data.used_items().tolist()
    fits = np.stack([world.audience.fit_of(seen.data.items[item].title, library) for item in items])
    assert (fits.max(axis=1) == 1).all()
    texts = seen.texts.numpy()[items]
    recall = texts @ vectors.T
    contexts = [ranker.context_of(text, known) for text, known in zip(texts, seen.bank.entities(items), strict=True)]
    clicks = np.stack(ranker.scores_of_items([vectors] * len(items), contexts))
    places = np.arange(len(items))
    found = {
        CHANCE: float(fits.mean()),
        "recall alone": float(fits[places, recall.argmax(axis=1)].mean()),
        "ranker alone": float(fits[places, clicks.argmax(axis=1)].mean()),
    }
    order = np.argsort(-recall, axis=1)
    for length in SHORT_LISTS:
        kept = order[:, :length]
        best = kept[places, np.take_along_axis(clicks, kept, axis=1).argmax(axis=1)]
        found[f"the best {length} by recall, then the ranker"] = float(fits[places, best].mean())
    return found


def test_clicks_say_more_than_likeness(source: Path, tmp_path: Path) -> None:
    recall, library = train_on_titles(source, tmp_path), two_shops(source, SHOPS)[1]
    ranking: dict[str, list[dict[str, float]]] = {}
    leading: dict[str, list[float]] = {}
    worlds = [World.read(source, recall, tmp_path / f"world-{number}", number) for number in WORLDS]
    seen: list[dict[str, Prepared]] = []

    def note(name: str, values: dict[str, float]) -> None:
        ranking.setdefault(name, []).append(values)

    for number, world in enumerate(worlds):
        note(KNOWN, knows_the_rule(world))
        folder = tmp_path / f"ranker-{number}"
        ranker = train(world, folder, number)
        seen.append(prepared(world, ranker, folder))
        for name, values in evaluated(ranker, seen[-1]).items():
            note(name, values)
        note(CLIK, clik(world, tmp_path / f"clik-{number}", number))
        note(REGRESSION, regression(world))
        for name, fit in leading_pictures(world, ranker, seen[-1][ALL], library).items():
            leading.setdefault(name, []).append(fit)
    _show(ranking, leading)
    for number, world in enumerate(worlds):
        won = train(world, tmp_path / f"won-{number}", number, loss="difference")
        note(WINNERS, evaluated(won, seen[number])[RANKER])
        folder = tmp_path / f"alone-{number}"
        alone = train(world, folder, number, {"entities": 0})
        note(ALONE, evaluated(alone, prepared(world, alone, folder))[RANKER])
    _show(ranking, {})
    for other in (RECALL, CLIK, REGRESSION):
        low, _ = over_seeds(_values(ranking, RANKER, ALL) - _values(ranking, other, ALL))
        assert low > 0, other
    for name in (one for one in leading if one != CHANCE):
        assert over_seeds(np.array(leading[name]) - np.array(leading[CHANCE]))[0] > 0, name


def _values(ranking: dict[str, list[dict[str, float]]], name: str, metric: str) -> NDArray[np.float64]:
    """(worlds,)."""
    return np.array([values[metric] for values in ranking[name]])


def _show(ranking: dict[str, list[dict[str, float]]], leading: dict[str, list[float]]) -> None:
    rows = [[name, *(seeds_cell(_values(ranking, name, metric)) for metric in METRICS)] for name in ranking]
    for name in [one for one in ranking if one not in {RANKER, KNOWN}]:
        ahead = [_values(ranking, RANKER, metric) - _values(ranking, name, metric) for metric in METRICS]
        rows.append([f"ahead of: {name}", *(seeds_cell(values, "+") for values in ahead)])
    show(["", *METRICS], rows)
    fits = {name: np.array(values) for name, values in leading.items()}
    show(["", "fit of the leading picture", "the best 20 by recall, then the ranker, ahead by"], [
        [name, seeds_cell(values), seeds_cell(fits["the best 20 by recall, then the ranker"] - values, "+")]
        for name, values in fits.items()
    ])  # fmt: skip
