"""Searching by text: a thousand texts against the pictures of an index, one by one and many at once.

One thread, on the catalogues of ``visual_search``. The text network is of the published size (four layers of BERT) with
random weights; what it gives is replaced, after it ran, by vectors like those of the index, so that each search is an
ordinary one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Table, peak_mib, progress
from benchmarks.visual_search import QUICK_SIZES, SIZES, filled

TEXTS, QUICK_TEXTS = 1_000, 16
AT_ONCE = 64
WARM_UP = 3
TOKENS = 14  # of a title of six words
LEAST = 0.5
BERT = {
    "model_type": "bert", "vocab_size": 21_128, "hidden_size": 768, "num_hidden_layers": 4, "num_attention_heads": 12,
    "intermediate_size": 3072, "add_pooling_layer": False,
}  # fmt: skip


class TimedTexts:
    """A text tower whose network runs, and whose answers are replaced."""

    max_tokens = 50
    card = SimpleNamespace(thresholds={"score": LEAST})

    def __init__(self, queries: NDArray[np.float32]) -> None:
        import torch

        from shopvision.encoders._fast import accelerate_text_encoder
        from shopvision.encoders.text_networks import build_text

        torch.manual_seed(0)
        self._network: Any = build_text(BERT)
        accelerate_text_encoder(self._network, pooling="cls")
        self._queries, self._next = queries, 0
        self.seconds = 0.0

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        return [False for _ in texts]

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        started = time.perf_counter()
        ids = torch.arange(len(texts) * TOKENS).reshape(len(texts), TOKENS) % BERT["vocab_size"]
        with torch.inference_mode():
            self._network(input_ids=ids, attention_mask=torch.ones_like(ids))
        self.seconds += time.perf_counter() - started
        places = np.arange(self._next, self._next + len(texts)) % len(self._queries)
        self._next += len(texts)
        return self._queries[places]


def run(*, quick: bool) -> list[Table]:
    """Each size in a deployment of its own, which ``visual_search`` may have filled already."""
    results = []
    texts = [f"text {number}" for number in range(QUICK_TEXTS if quick else TEXTS)]
    for rows in QUICK_SIZES if quick else SIZES:
        with filled(rows, keep=not quick) as queries:
            results += _measured(rows, queries, texts)
    note = (
        f"One thread; {len(texts):,} texts of {TOKENS} tokens through four layers of BERT; the ten best items of each, "
        f"with what Postgres says of them. *latency*: one text after the other; *texts/s*: {AT_ONCE} at once. "
        "*network*: its share of a text's time, one after the other. *candidates/s*: texts whose best 100 pictures "
        "were looked up in the index alone, as the selection of items' pictures does it."
    )
    return [Table("Search by text", note, results)]


def _measured(rows: int, queries: NDArray[np.float32], texts: Sequence[str]) -> list[dict[str, Any]]:
    import torch

    from shopvision.index.faiss_library import faiss
    from shopvision.index.reader import IndexReader
    from shopvision.search import SearchOptions, VisualSearch
    from shopvision.settings import get_settings
    from shopvision.storage import open_store

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    tower, options = TimedTexts(queries), SearchOptions(k=10)
    reader = IndexReader(open_store(), "catalogue", get_settings().cache_dir / "index")
    search = VisualSearch(load={f"bench:{rows}": tower}.__getitem__, text_index=reader)
    search.by_text(texts[:WARM_UP], options)
    tower.seconds = 0.0
    whole = []
    for text in texts:
        started = time.perf_counter()
        search.by_text([text], options)
        whole.append(1000 * (time.perf_counter() - started))
    network = 1000 * tower.seconds / len(texts)
    started = time.perf_counter()
    for first in range(0, len(texts), AT_ONCE):
        search.by_text(texts[first : first + AT_ONCE], options)
    many = time.perf_counter() - started
    started = time.perf_counter()
    for first in range(0, len(texts), AT_ONCE):
        reader.generation().search(tower.encode_texts(texts[first : first + AT_ONCE]), 100)
    alone = time.perf_counter() - started
    result = {
        "vectors": rows,
        "latency p50 ms": round(float(np.percentile(whole, 50)), 1),
        "latency p95 ms": round(float(np.percentile(whole, 95)), 1),
        "network ms": round(network, 1),
        "texts/s": round(len(texts) / many, 1),
        "candidates/s": round(len(texts) / alone, 1),
        "peak MiB": peak_mib(),
    }
    progress(f"text_search: {result}")
    return [result]
