"""How good a ranker is on exhibitions it has not seen: ranking, matching, retrieval, and what its vectors know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.devices import best_precision, choose_device
from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure
from shopvision.evaluation.ranking_metrics import (
    RankedLists,
    ndcg,
    random_ndcg,
    random_reciprocal_rank,
    random_top_hit,
    reciprocal_rank,
    top_hit,
)
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.evaluation.retrieval_metrics import linear_evaluation, matching_accuracy, recall_at
from shopvision.images import PictureDoor
from shopvision.images.encoded import encode_pictures
from shopvision.selection.clik.card import LoadedClik, load_clik
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.training.features import OnProgress

TOP_HITS = ((1, 1), (3, 1), (5, 1), (5, 5))
NDCG_AT = (5, 10)
RECALL_AT = (1, 5, 10)
TOPICS_AT_ONCE = 256

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankingEvaluation:
    """Every metric of one model on one set of exhibitions.

    =========================================  ========================================================================
    metric                                     one value per exhibition
    =========================================  ========================================================================
    ``mrr``                                    1 / predicted rank of the truly best picture
    ``topN_topK``                              any of the N truly best among the K predicted best
    ``ndcg_K``                                 normalised discounted cumulative gain, gain = label
    ``topic_to_image``, ``image_to_topic``     in-batch accuracy of topic and best picture finding each other
    ``recall_K``                               its best picture among the K nearest of all exhibitions' best pictures
    ``linear``                                 accuracy of a linear model that tells categories from picture vectors
    =========================================  ========================================================================

    Attributes:
        metrics: name -> mean, interval over exhibitions, random expectation.
        categories: category -> the same of its exhibitions alone (without ``linear``).
        exhibitions: how many were ranked.
        pictures: how many different ones.
        unreadable: pictures left out because they could not be read.
        model: ``name:tag``.
        data_fingerprint: sha256 of the exhibitions as they were ranked.
    """

    metrics: dict[str, Measured]
    categories: dict[str, dict[str, Measured]]
    exhibitions: int
    pictures: int
    unreadable: int = 0
    model: str = ""
    data_fingerprint: str = ""

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        return EvaluationReport(
            name=self.model,
            data=f"exhibitions, content sha256 {self.data_fingerprint}",
            counts={
                "exhibitions": self.exhibitions,
                "pictures": self.pictures,
                "unreadable pictures left out": self.unreadable,
            },
            metrics=self.metrics,
            parts=[
                Part("category", name or "none", metrics, shown=("mrr",)) for name, metrics in self.categories.items()
            ],
        )


def evaluate_vectors(
    data: RankingData,
    *,
    topic_vectors: Vectors,
    query_vectors: Vectors,
    image_vectors: Vectors,
    matching_batch: int = 512,
    resamples: int = RESAMPLES,
    linear: bool = True,
    seed: int = 0,
) -> RankingEvaluation:
    """All metrics from vectors that are there already; with ``resamples=0, linear=False`` fast enough for every epoch.

    Args:
        data: n exhibitions over u used products.
        topic_vectors: (n, h) of the exhibitions' topics, for matching and recall.
        query_vectors: (n, h) what pictures are compared with, for ranking.
        image_vectors: (u, h) of ``data.used_products()``, in that order.
        matching_batch: pairs that are compared at once.
        resamples: of the bootstrap; 0 leaves intervals out.
        linear: whether to fit the linear evaluation.
        seed: of batches, resampling and the held-out pictures.
    """
    used = data.used_products()
    places = [np.searchsorted(used, exhibition.products) for exhibition in data.exhibitions]
    lists = RankedLists.from_lists(
        [image_vectors[place] @ query for place, query in zip(places, query_vectors, strict=True)],
        [exhibition.labels for exhibition in data.exhibitions],
    )
    best = np.array([place[0] for place in places])
    values, random = _ranking(lists)
    count = len(places)
    forward, backward, chance = matching_accuracy(topic_vectors, image_vectors[best], matching_batch, seed=seed)
    found = recall_at(topic_vectors, image_vectors[best], np.arange(count), RECALL_AT)
    values |= {"topic_to_image": forward, "image_to_topic": backward}
    random |= {"topic_to_image": chance, "image_to_topic": chance}
    values |= {f"recall_{k}": found[:, column] for column, k in enumerate(RECALL_AT)}
    random |= {f"recall_{k}": np.full(count, min(k, count) / count) for k in RECALL_AT}
    table, chances = np.stack(list(values.values()), axis=1), np.stack(list(random.values()), axis=1)

    def of(rows: NDArray[np.bool_]) -> dict[str, Measured]:
        return dict(zip(values, measure(table[rows], chances[rows], resamples=resamples, seed=seed), strict=True))

    metrics = of(np.ones(count, np.bool_))
    if linear:
        metrics |= _linear(data, used, image_vectors, resamples, seed)
    names = np.array([exhibition.category for exhibition in data.exhibitions])
    categories = {str(name): of(names == name) for name in np.unique(names)}
    return RankingEvaluation(metrics, categories, count, len(used))


def _ranking(lists: RankedLists) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Ranking metrics and their random expectations, (lists,) each."""
    values = {"mrr": reciprocal_rank(lists)}
    random = {"mrr": random_reciprocal_rank(lists.counts)}
    for truly, predicted in TOP_HITS:
        values[f"top{truly}_top{predicted}"] = top_hit(lists, truly, predicted)
        random[f"top{truly}_top{predicted}"] = random_top_hit(lists.counts, truly, predicted)
    for k in NDCG_AT:
        values[f"ndcg_{k}"] = ndcg(lists, k)
        random[f"ndcg_{k}"] = random_ndcg(lists, k)
    return values, random


def _linear(
    data: RankingData, used: NDArray[np.int32], image_vectors: Vectors, resamples: int, seed: int
) -> dict[str, Measured]:
    """Linear evaluation: class = category of the exhibition x first category of the product, as published.

    The interval is over exhibitions, because pictures of one exhibition are not independent.
    """
    exhibition_of = np.full(len(used), -1)
    for number, exhibition in reversed(list(enumerate(data.exhibitions))):
        exhibition_of[np.searchsorted(used, exhibition.products)] = number
    labels = np.array(
        [
            f"{data.exhibitions[number].category}\x1f{data.products.topic(int(product)).cat1}"
            for number, product in zip(exhibition_of, used, strict=True)
        ]
    )
    evaluation = linear_evaluation(image_vectors, labels, seed=seed)
    if evaluation is None:
        return {}
    known = ~np.isnan(evaluation.correct)
    numbers, count = exhibition_of[known], len(data.exhibitions)
    pictures = np.bincount(numbers, minlength=count).astype(np.float64)
    right = np.bincount(numbers, evaluation.correct[known], count)
    shares = np.divide(right, pictures, out=np.full(count, np.nan), where=pictures > 0)
    random = np.full((count, 1), 1 / evaluation.classes)
    return {"linear": measure(shares[:, None], random, pictures[:, None], resamples=resamples, seed=seed)[0]}


def evaluate_ranker(
    folder: Path,
    data: RankingData,
    door: PictureDoor,
    *,
    device: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> RankingEvaluation:
    """A model version on exhibitions, computed as ranking plans computes it.

    Args:
        folder: of the model version.
        data: exhibitions that it was not trained on.
        door: that the pictures come through.
        device: by default the GPU where there is one.
        resamples: of the bootstrap.
        seed: of everything drawn.
        on_progress: called with (pictures done, all).

    Raises:
        UserError: no such model, nothing to rank, or not one picture can be read.
        TransientError: a source of pictures is away.
    """
    if not data.exhibitions:
        raise UserError("There is no exhibition to evaluate on: choose another split or table.")
    loaded = load_clik(folder)
    place = choose_device(device)
    loaded.clik.requires_grad_(requires_grad=False).to(place)
    topics, queries = _topic_and_query_vectors(loaded, data, place)
    encoder = ImageEncoder(
        loaded.clik.img_encoder,
        loaded.preprocessing,
        loaded.arguments.feature_dim,
        device=place,
        dtype=best_precision(place),
    )
    used = data.used_products()
    uris = [data.products.image(int(product)) for product in used]
    encoded = encode_pictures(uris, encoder, door, dimension=encoder.dimension, on_progress=on_progress)
    images, failures = encoded.vectors, encoded.failures
    if len(failures) == len(used):
        reason = next(iter(failures.values()))
        raise UserError(f"Not one of {len(used):,} pictures can be read ({reason}): check the picture folder.")
    rows = np.arange(len(data.exhibitions))
    if failures:
        unreadable = used[sorted(failures)]
        kept = [exhibition.keep(~np.isin(exhibition.products, unreadable)) for exhibition in data.exhibitions]
        rows = np.array([row for row, exhibition in enumerate(kept) if len(exhibition.products)])
        data = data.with_exhibitions(kept[row] for row in rows)
        images = images[np.searchsorted(used, data.used_products())]
    report = evaluate_vectors(
        data,
        topic_vectors=topics[rows],
        query_vectors=queries[rows],
        image_vectors=images,
        matching_batch=loaded.arguments.bank_size,
        resamples=resamples,
        seed=seed,
    )
    return replace(report, unreadable=len(failures), model=loaded.card.spec, data_fingerprint=data.fingerprint())


@torch.inference_mode()
def _topic_and_query_vectors(loaded: LoadedClik, data: RankingData, device: torch.device) -> tuple[Vectors, Vectors]:
    """(n, h) topic vectors and (n, h) query vectors of the exhibitions."""
    tokens = loaded.topic_tokenizer.encode([exhibition.topic for exhibition in data.exhibitions])
    topics = torch.empty(len(tokens), loaded.arguments.feature_dim)
    queries = torch.empty_like(topics)
    # Topics of like length together, because each batch is padded to its longest.
    for rows in torch.split(tokens.attention_mask.sum(1).argsort(stable=True), TOPICS_AT_ONCE):
        vectors = loaded.clik.txt_encoder(tokens.rows(rows).to(device))
        topics[rows] = vectors.cpu()
        queries[rows] = loaded.clik.query_vectors(vectors).cpu()
    return topics.numpy(), queries.numpy()
