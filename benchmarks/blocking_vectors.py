"""Candidates by words and by vectors, at as many candidates, in a catalogue of 200,000 items.

Real offers, of which labelled pairs tell which are the same product, stand in a crowd that is made of them: titles of
real offers in which words are exchanged. The vectors are those of two-towers that learnt, contrastively, from the
training pairs of the same sets, and those of the same encoder as it was.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import Table, peak_mib, progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.items.item import Item
    from shopvision.matching.options import Source

OFFERS = {"abt_buy": "train", "wdc_lspc_shoes": "train_medium", "wdc_lspc_computers": "train_medium"}
ITEMS, QUICK_ITEMS = 200_000, 2_000
QUICK_PAIRS, QUICK_OFFERS = 48, 300
CANDIDATES = (5, 20)
EXCHANGED = 3  # words of a title
ENCODER = "wheel:minilm"
PAIRS = {"epochs": 5, "batch_size": 64, "select_by": "average_precision"}
LEARNT: dict[str, dict[str, Any]] = {
    "mnr": {"train": PAIRS},
    "stage": {"contrastive": {"epochs": 5}, "train": PAIRS | {"epochs": 1}},
}


def run(*, quick: bool) -> list[Table]:
    """Each source alone, then words and vectors together."""
    table = Table(
        "Blocking: words and vectors",
        f"{QUICK_ITEMS if quick else ITEMS:,} titles: offers of the test pairs of {', '.join(OFFERS)}, and "
        f"titles made of these with {EXCHANGED} words exchanged. *at most*: partners that an item looks up; "
        "*candidates*: mean partners of an item, counted from both sides. Then the share of the same pairs of each set "
        "that is among them. *MiniLM*: vectors of the encoder as it is; *mnr*: of a text_two_tower that learnt from "
        "the training pairs of the sets in five epochs with that loss; *stage*: from which offers are one product in "
        "five epochs ([contrastive]), then in one as before. *seconds*: of blocking, without the vectors, which are "
        "made once; *peak MiB*: of the process until then.",
    )
    with tempfile.TemporaryDirectory() as name:
        table.rows = _found(Path(name), quick=quick)
    return [table]


def _found(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    from shopvision.matching.families.item_encoder import make_item_encoder

    items, positives = catalogue(QUICK_ITEMS if quick else ITEMS, QUICK_OFFERS if quick else None)
    make_item_encoder(ENCODER, folder / "as_it_is")
    _write_pairs(folder, quick=quick)
    vectors = {"MiniLM": _vectors(folder / "as_it_is", items)}
    vectors |= {name: _vectors(_learn(folder, name, quick=quick), items) for name in LEARNT}
    ways: list[tuple[str, tuple[Source, ...], str | None]] = [("words", ("words",), None)]
    ways += [(f"vectors: {name}", ("text_vector",), name) for name in vectors]
    ways += [(f"words and vectors: {name}", ("words", "text_vector"), name) for name in vectors]
    ways += [("codes, attributes, words", ("code", "attribute", "words"), None)]
    ways += [(f"all of it, {name}", ("code", "attribute", "words", "text_vector"), name) for name in LEARNT]
    rows = []
    for most in CANDIDATES:
        for way, sources, name in ways:
            given = None if name is None else vectors[name]
            rows.append({"by": way, **_measure(items, positives, sources, most, given)})
            progress(str(rows[-1]))
    return rows


def catalogue(count: int, most_offers: int | None) -> tuple[list[Item], dict[str, set[tuple[str, str]]]]:
    """So many items, and per set the ids of pairs that are the same product, the smaller first."""
    from shopvision.items.item import Item, pair_key
    from tests.conftest import DATA
    from tests.quality.product_offers import offers

    items: list[Item] = []
    positives = {}
    for name in OFFERS:
        own, same = offers(DATA, name, ["test"])
        items += [Item(f"{name}-{item.item_id}", title=item.title) for item in own[:most_offers]]
        known = {item.item_id for item in own[:most_offers]}
        pairs = (pair for pair in same if known.issuperset(pair))
        positives[name] = {pair_key(*(f"{name}-{one}" for one in pair)) for pair in pairs}
    generator = np.random.default_rng(0)
    titles = [item.title.split() for item in items]
    words = [word for title in titles for word in title]
    for number in range(count - len(items)):
        made = list(titles[generator.integers(len(titles))])
        for place in generator.choice(len(made), min(EXCHANGED, len(made)), replace=False):
            made[place] = words[generator.integers(len(words))]
        items.append(Item(f"made-{number}", title=" ".join(made)))
    return items, positives


def _write_pairs(folder: Path, *, quick: bool) -> None:
    """The labelled pairs of all sets as one file of each split, by titles alone, as the crowd has them."""
    from tests.conftest import DATA

    for split in ("train", "valid"):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as output:
            for name, own in OFFERS.items():
                path = DATA / "er_product_pairs" / f"{name}.{own.replace('train', split)}.jsonl.gz"
                with gzip.open(path, "rt", encoding="utf-8") as lines:
                    rows = [json.loads(line) for line in lines]
                some = np.random.default_rng(0).permutation(len(rows))[: QUICK_PAIRS if quick else None]
                for row in (rows[place] for place in some):
                    sides = {side: {"title": row[side]["title"]} for side in ("left", "right")}
                    output.write(json.dumps(sides | {"label": row["label"]}) + "\n")


def _learn(folder: Path, name: str, *, quick: bool) -> Path:
    """The two-tower of that name in ``LEARNT``."""
    from shopvision.matching.fitting.config import MatcherConfig
    from shopvision.matching.fitting.train import train_matcher
    from shopvision.training.run import TrainingRun

    once = {"epochs": 1} if quick else {}
    config = MatcherConfig.model_validate(
        {
            "data": {"pairs": folder / "train.jsonl", "valid": folder / "valid.jsonl"},
            "text": {"builder": "title", "max_length": 48},
            "model": {"family": "text_two_tower", "text": ENCODER, "loss": "mnr"},
            "thresholds": {"cross_fit": 0},
        }
        | {section: fields | once for section, fields in LEARNT[name].items()}
    )
    report = train_matcher(config, TrainingRun(output=folder / name))
    if report is None:
        raise AssertionError("one process gives a report")
    progress(f"two-tower {name}: {report.metrics}")
    return report.folder


def _vectors(model: Path, items: Sequence[Item]) -> NDArray[np.float32]:
    from shopvision.matching.scoring.predict import PairScorer

    started = time.perf_counter()
    vectors = PairScorer(model, device="cpu").item_vectors(items, None)
    progress(f"{len(items):,} vectors in {time.perf_counter() - started:.0f} s")
    return vectors


def _measure(
    items: Sequence[Item],
    positives: dict[str, set[tuple[str, str]]],
    sources: tuple[Source, ...],
    most: int,
    vectors: NDArray[np.float32] | None,
) -> dict[str, Any]:
    from shopvision.matching.blocking.candidates import pairs_of_items
    from shopvision.matching.options import BlockingOptions

    options = BlockingOptions(sources=sources, neighbours=most, max_per_item=most)
    wanted = {pair: name for name, pairs in positives.items() for pair in pairs}
    found, count, started = dict.fromkeys(positives, 0), 0, time.perf_counter()
    for batch in pairs_of_items(items, options, text_vectors=vectors):
        count += len(batch)
        for pair in batch:
            if name := wanted.get((pair.left, pair.right)):
                found[name] += 1
    seconds = time.perf_counter() - started
    recall = {name: round(found[name] / max(1, len(pairs)), 4) for name, pairs in positives.items()}
    return {
        "at most": most, "candidates": round(2 * count / len(items), 1), **recall, "seconds": round(seconds, 1),
        "peak MiB": peak_mib(),
    }  # fmt: skip
