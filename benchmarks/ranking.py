"""rank_plans through Celery against the published way, training against a plain loop, and the memory of both.

The same weights, photos and plans for every way: EfficientNet-Lite0 and MiniLM with seeded projections, in the same run
and in turns. Our rates count from the submission of a job to its end.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import CORES, Deployment, Table, import_catalogue, progress, write_catalogue
from benchmarks.ranking_baselines import measure
from benchmarks.ranking_training import clik_config, measure_training, topics_of
from benchmarks.refresh_pictures import make_pictures

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

PUBLISHED = "published: every plan encodes its pictures"
COLD, WARM = "shopvision, no vectors yet", "shopvision, vectors kept"
REPETITIONS = 2
BANK = 512
SAME_SCORE = 0.01  # bfloat16 networks and float16 vectors differ from float32 by 0.002


@dataclass(frozen=True)
class Case:
    """Plans to rank.

    Attributes:
        candidates: pictures of each plan, drawn from all ``pictures``.
        plans: several chunks for every process of the worker.
        published: how many of them the published way ranks, which takes seconds for each.
    """

    candidates: int
    plans: int
    pictures: int
    published: int


CASES = (Case(50, 640, 1600, 10), Case(500, 256, 1600, 2))
QUICK_CASES = (Case(20, 8, 40, 2),)
CANDIDATES, QUICK_CANDIDATES = (50, 10_000), (100,)


def run(*, quick: bool) -> list[Table]:
    """Rates and memory of the job, then training."""
    rates = Table(
        "Ranking of promotion plans",
        "Plans per second, medians of interleaved repetitions. *encoded*: pictures that went through the model, of "
        "which each is in many plans. *ratio*: by the published way, which has plain float32 networks encode one "
        "plan's text and pictures after the other.",
    )
    memory = Table(
        "Memory of a worker that ranks",
        "Peak resident memory of the largest process of a freshly started GPU-role worker after one plan whose "
        "pictures have vectors.",
    )
    cases, candidates = (QUICK_CASES, QUICK_CANDIDATES) if quick else (CASES, CANDIDATES)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers() as shop:
        folder = Path(name)
        paths = make_pictures(folder / "pictures", max(*(case.pictures for case in cases), *candidates), large=False)
        import_catalogue(write_catalogue(folder / "items.jsonl", paths, "picture"), folder / "pictures")
        model = _activate(folder / "model")
        shop.start("cpu")
        shop.start("gpu")
        for case in cases:
            rates.rows += measure_case(shop, model, case, paths, repetitions=1 if quick else REPETITIONS)
        shop.stop("gpu")
        _pretend_embedded(model)
        for size in candidates:
            memory.rows.append(_peak_of_one_plan(shop, size))
    return [rates, memory, measure_training(quick=quick)]


def measure_case(
    shop: Deployment, model: ModelVersionRef, case: Case, paths: Sequence[Path], *, repetitions: int
) -> list[dict[str, object]]:
    """One row per way."""
    from shopvision import models
    from shopvision.catalogue import delete_plans, upsert_plans
    from shopvision.database import connect

    generator = np.random.default_rng(case.candidates)
    topics = topics_of(case.plans, generator)
    members = [generator.choice(case.pictures, case.candidates, replace=False).tolist() for _ in topics]
    plan_ids = [f"plan-{number:04d}" for number in range(case.plans)]
    with connect() as connection:
        upsert_plans(connection, [_record(*plan) for plan in zip(plan_ids, topics, members, strict=True)])
    listing = shop.folder / "plans.json"
    plans = [
        {"topic": topic, "pictures": [str(paths[member]) for member in chosen]}
        for topic, chosen in zip(topics[: case.published], members, strict=False)
    ]
    listing.write_text(json.dumps(plans), encoding="utf-8")
    rates: dict[str, list[float]] = {PUBLISHED: [], COLD: [], WARM: []}
    encoded = {PUBLISHED: case.published * case.candidates}
    # At once, so that each process of the worker has loaded the model.
    for job_id in [shop.submit("rank_plans", plan_ids=[plan_id]) for plan_id in plan_ids[: 2 * CORES]]:
        shop.wait(job_id)
    for _ in range(repetitions):
        theirs = measure("published", models.local_copy(model), listing)
        rates[PUBLISHED].append(len(theirs) / sum(seconds for seconds, _ in theirs))
        _forget_vectors(model)
        for way in (COLD, WARM):
            rate, encoded[way] = _rank_all(shop)
            rates[way].append(rate)
        _require_same(model, plan_ids, [scores for _, scores in theirs])
        progress(", ".join(f"{way}: {values[-1]:.2f}" for way, values in rates.items()))
    with connect() as connection:
        delete_plans(connection, plan_ids)
    slow = statistics.median(rates[PUBLISHED])
    return [
        {
            "candidates": case.candidates,
            "way": way,
            "plans": case.published if way == PUBLISHED else case.plans,
            "encoded": encoded[way],
            "plans/s": statistics.median(values),
            "ratio": statistics.median(values) / slow,
        }
        for way, values in rates.items()
    ]


def _activate(folder: Path) -> ModelVersionRef:
    """Pretrained encoders and seeded projections, as training begins with them."""
    from shopvision import models
    from shopvision.selection.clik.card import save_clik
    from shopvision.selection.clik.preparation import fetch_encoders

    encoders = fetch_encoders(clik_config(), BANK)
    save_clik(
        folder, encoders.clik, encoders.arguments, encoders.text.tokenizer, encoders.image.preprocessing,
        name="benchmark", source="seeded projections",
    )  # fmt: skip
    return models.activate("plan_ranker", models.import_model(f"local-dir:{folder}").spec)


def _record(plan_id: str, topic: dict[str, Any], members: Sequence[int]) -> dict[str, Any]:
    return {"plan_id": plan_id, "member_item_ids": [f"picture-{member}" for member in members], **topic}


def _rank_all(shop: Deployment) -> tuple[float, int]:
    """Plans per second of one job over all plans, and how many pictures it encoded."""
    from worker.ledger.progress import job_progress

    job_id = shop.submit("rank_plans", scope="all")
    times = shop.wait(job_id)
    return times.items / times.to_end, job_progress(job_id).counters["embedded"]


def _require_same(model: ModelVersionRef, plan_ids: Sequence[str], scores: Sequence[Sequence[float]]) -> None:
    """Both ways do the same work: the best pictures score alike."""
    from sqlalchemy import select

    from shopvision.database import connect
    from shopvision.selection.tables import PlanRanking

    best = select(PlanRanking.plan_id, PlanRanking.score).where(
        PlanRanking.model_version_id == model.model_version_id, PlanRanking.rank == 1
    )
    with connect() as connection:
        ours = dict(connection.execute(best).tuples().all())
    for plan_id, theirs in zip(plan_ids, scores, strict=False):
        if abs(ours[plan_id] - max(theirs)) > SAME_SCORE:
            raise SystemExit(f"{plan_id}: the best picture scores {ours[plan_id]}, published {max(theirs)}.")


def _forget_vectors(model: ModelVersionRef) -> None:
    from sqlalchemy import delete

    from shopvision.database import connect
    from shopvision.index.tables import Embedding

    with connect() as connection:
        connection.execute(delete(Embedding).where(Embedding.model_version_id == model.model_version_id))


def _pretend_embedded(model: ModelVersionRef) -> None:
    """Store a vector for every picture of the catalogue."""
    from sqlalchemy import select

    from shopvision.catalogue.tables import ItemImage
    from shopvision.database import connect
    from shopvision.embeddings.store import write_outcomes
    from shopvision.images.outcome import Embedded

    generator = np.random.default_rng(0)
    with connect() as connection:
        image_ids = connection.scalars(select(ItemImage.image_id)).all()
        vectors = generator.normal(size=(len(image_ids), model.card.dimension or 0))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        outcomes = [
            Embedded(image_id, bytes(32), "", vector.astype("<f2").tobytes())
            for image_id, vector in zip(image_ids, vectors, strict=True)
        ]
        write_outcomes(connection, model.model_version_id, outcomes)


def _peak_of_one_plan(shop: Deployment, candidates: int) -> dict[str, object]:
    from shopvision.catalogue import upsert_plans
    from shopvision.database import connect

    plan_id = f"plan-of-{candidates}"
    topic = topics_of(1, np.random.default_rng(candidates))[0]
    with connect() as connection:
        upsert_plans(connection, [_record(plan_id, topic, range(candidates))])
    shop.start("gpu")
    times = shop.run("rank_plans", plan_ids=[plan_id])
    row: dict[str, object] = {"candidates": candidates, "peak MiB": shop.peak_mib("gpu")}
    shop.stop("gpu")
    progress(f"memory: {row}, {times.to_end:.1f} s")
    return row
