"""What the scoring of pairs is compared with, and that scoring itself, in processes of their own.

``python -m benchmarks.pair_scoring_baselines WAY ...`` prints one line of JSON, what it gives and the peak of its
memory; :func:`measure` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, peak_mib

MAX_LENGTH = 256
BATCH_SIZE = 32  # the default of CrossEncoder.predict

Texts = Sequence[tuple[str, str]]
Timed = tuple[float, list[float]]


def measure(way: str, *arguments: object, tuned: bool) -> tuple[Any, int]:
    """Run one way in a process of its own.

    Args:
        way: name of a function below.
        arguments: of that function.
        tuned: with the memory settings of a worker.

    Returns:
        What it gives, and the peak of its resident memory in MiB.
    """
    from worker.stack.processes import MALLOC_TUNABLES

    command = [sys.executable, "-m", "benchmarks.pair_scoring_baselines", way, *map(str, arguments)]
    environment = os.environ | {"GLIBC_TUNABLES": MALLOC_TUNABLES if tuned else ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    result, peak = json.loads(done.stdout.splitlines()[-1])
    return result, peak


def cross_encoder(folder: str, listing: str) -> Timed:
    """As its documentation has it: sorted by length, batches of 32, float32."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(Path(folder, "theirs")), max_length=MAX_LENGTH, device="cpu")
    return _timed(lambda pairs: model.predict(pairs, show_progress_bar=False).tolist(), listing)


def padded_loop(folder: str, listing: str) -> Timed:
    """What one writes by hand: every batch padded to the full length, float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(folder, "theirs"))
    model = AutoModelForSequenceClassification.from_pretrained(Path(folder, "theirs")).eval()

    @torch.inference_mode()
    def score(pairs: Texts) -> list[float]:
        probabilities: list[float] = []
        for start in range(0, len(pairs), BATCH_SIZE):
            left, right = zip(*pairs[start : start + BATCH_SIZE], strict=True)
            inputs = tokenizer(
                left, right, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
            )
            probabilities += model(**inputs).logits[:, 0].sigmoid().tolist()
        return probabilities

    return _timed(score, listing)


def shopvision(folder: str, listing: str) -> Timed:
    """``PairScorer``: every text is tokenised once, however many pairs it is in."""
    import numpy as np

    from shopvision.items.item import Item
    from shopvision.matching.scoring.predict import PairScorer

    scorer = PairScorer(Path(folder, "title"), device="cpu")

    def score(pairs: Texts) -> list[float]:
        places: dict[str, int] = {}
        rows = np.array([[places.setdefault(text, len(places)) for text in pair] for pair in pairs])
        items = [Item(str(number), title=text) for text, number in places.items()]
        probabilities: list[float] = scorer.score(items, rows[:, 0], rows[:, 1]).tolist()
        return probabilities

    return _timed(score, listing)


def family(model: str, listing: str, images: str, pairs: str) -> tuple[float, float]:
    """A model of any family, as a chunk of the job works: what is kept of items, pictures read, and then the pairs.

    Args:
        model: folder of the model version.
        listing: file of items.
        images: folder that their pictures lie in.
        pairs: (n, 2) rows of the items, as NumPy writes it.

    Returns:
        Seconds for the items, and for the pairs.
    """
    import numpy as np

    from shopvision.images import PictureDoor
    from shopvision.items.item_files import read_items
    from shopvision.matching.scoring.item_pictures import gather_vectors
    from shopvision.matching.scoring.predict import PairScorer
    from shopvision.settings import get_settings

    items = list(read_items(Path(listing), images=images).values())
    left, right = np.load(pairs).T
    scorer = PairScorer(Path(model), device="cpu")
    with PictureDoor(get_settings().with_image_roots([Path(images)])) as door:
        few = items[:BATCH_SIZE]
        scorer.score(few, np.arange(len(few) - 1), np.arange(1, len(few)), gather_vectors(scorer, few, door)[0])
        started = time.perf_counter()
        vectors, failed = gather_vectors(scorer, items, door)
        read = time.perf_counter()
        scores = scorer.score(items, left, right, vectors)
        scored = time.perf_counter()
    if failed or not np.isfinite(scores).all():
        raise SystemExit(f"{model} cannot read all items.")
    return read - started, scored - read


def _timed(score: Callable[[Texts], list[float]], listing: str) -> Timed:
    pairs = [(left, right) for left, right in json.loads(Path(listing).read_bytes())]
    score(pairs[:BATCH_SIZE])
    started = time.perf_counter()
    scores = score(pairs)
    return time.perf_counter() - started, scores


def stages(folder: str, most_items: str, count: str, *files: str) -> list[dict[str, object]]:
    """Score random pairs of the items of some files, stage by stage.

    Args:
        folder: of the models.
        most_items: how many items to take.
        count: how many pairs of them.
        files: with pairs of items written out.
    """
    import numpy as np
    import torch

    from shopvision.items.pair_files import read_pairs
    from shopvision.matching.families.card import load_matcher
    from shopvision.matching.scoring.batching import TOKENS_AT_ONCE, token_batches
    from shopvision.matching.scoring.predict import PairScorer

    generator = np.random.default_rng(0)
    reader: Any = load_matcher(Path(folder, "attributes")).model.reader
    packer = reader.packer
    scorer, cheap = (PairScorer(Path(folder, name), device="cpu") for name in ("attributes", "two_tower"))
    rows: list[dict[str, object]] = []

    def stage(name: str, what: str, number: int, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        rows.append({"stage": name, "of": f"{number:,} {what}", "seconds": seconds, "per second": number / seconds,
                     "peak MiB": peak_mib()})  # fmt: skip
        return result

    known = {item.content_hash(): item for file in files for item in read_pairs(file).items}
    items = list(known.values())[: int(most_items)]
    pairs = int(count)
    left = generator.integers(0, len(items), pairs)
    right = (left + generator.integers(1, len(items), pairs)) % len(items)
    budget = TOKENS_AT_ONCE["cpu"]
    tokens = stage("texts and tokens", "items", len(items), lambda: packer.items(items))
    batches = stage(
        "lengths and batches", "pairs", pairs,
        lambda: list(token_batches(packer.pair_lengths(tokens, left, right), budget, torch.get_num_threads())),
    )  # fmt: skip

    def pack() -> None:
        for batch in batches:
            packer.pairs(tokens, left[batch], right[batch])

    stage("sequences put together", "pairs", pairs, pack)
    vectors = stage("two-tower: item vectors", "items", len(items), lambda: cheap.item_vectors(items, None))
    stage("two-tower: head", "pairs", pairs, lambda: cheap.score(items, left, right, vectors))
    stage("cross-encoder: all of it", "pairs", pairs, lambda: scorer.score(items, left, right))
    return rows


if __name__ == "__main__":
    ways: dict[str, Callable[..., Any]] = {
        "cross_encoder": cross_encoder, "padded_loop": padded_loop, "shopvision": shopvision, "family": family,
        "stages": stages,
    }  # fmt: skip
    given = ways[sys.argv[1]](*sys.argv[2:])
    print(json.dumps([given, peak_mib()]))
