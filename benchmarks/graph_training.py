"""Learning the vectors of a knowledge graph of a million triples: ours, and plain torch.

Each way runs in a process of its own: ``python -m benchmarks.graph_training WAY TRIPLES SECONDS``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import CORES, REPOSITORY, Table, peak_mib, progress
from benchmarks.goals import NO_GOAL, at_least

if TYPE_CHECKING:
    from shopvision.graph.knowledge import KnowledgeGraph
    from shopvision.graph.learner import GraphLearner

TRIPLES, QUICK_TRIPLES = 1_000_000, 5_000
SECONDS, QUICK_SECONDS = 60.0, 0.5
DIMENSION, BATCH, NEGATIVES = 128, 4096, 2
PER_ITEM, RELATIONS, VALUES_A_RELATION = 10, 40, 500

Steps = Iterator[int]
"""Yields after each step how many triples it learnt from."""


def run(*, quick: bool) -> list[Table]:
    """Triples per second."""
    triples, seconds = (QUICK_TRIPLES, QUICK_SECONDS) if quick else (TRIPLES, SECONDS)
    table = Table(
        "Training of a knowledge graph",
        f"{triples:,} triples of {triples // PER_ITEM:,} items with {PER_ITEM} of {RELATIONS} attributes each, "
        f"{VALUES_A_RELATION} values an attribute; {DIMENSION} dimensions, {BATCH:,} triples in a step, {NEGATIVES} "
        f"wrong ones beside each. {seconds:g} s each, counted after the first tenth; the drawing of wrong triples is "
        "part of it. *ratio*: by the usual loop, in which every step runs over the whole table. *peak MiB*: of the "
        "process.",
    )
    found = {way: _measure(way, triples, seconds) for way in WAYS}
    usual = found[USUAL]["triples_per_second"]
    for way, result in found.items():
        ratio = result["triples_per_second"] / usual
        row = {"way": way, "triples/s": result["triples_per_second"], "ratio": ratio, "peak MiB": result["peak_mib"]}
        table.rows.append(row | (at_least(3, ratio) if way == OURS else NO_GOAL))
        progress(str(table.rows[-1]))
    return [table]


def made_graph(triples: int) -> KnowledgeGraph:
    """Items with attributes whose values are as common as in shops: a few are everywhere, most are rare."""
    from shopvision.graph.knowledge import KnowledgeGraph

    generator = np.random.default_rng(0)
    items = triples // PER_ITEM
    relations = np.argsort(generator.random((items, RELATIONS)), axis=1)[:, :PER_ITEM]
    values = (generator.zipf(1.3, (items, PER_ITEM)) - 1) % VALUES_A_RELATION
    tails = items + relations * VALUES_A_RELATION + values
    numbers = np.stack([np.repeat(np.arange(items), PER_ITEM), relations.ravel(), tails.ravel()], axis=1)
    names = [f"/item/{number}" for number in range(items)]
    names += [f"/value/{number}" for number in range(RELATIONS * VALUES_A_RELATION)]
    return KnowledgeGraph(tuple(names), tuple(f"attribute {number}" for number in range(RELATIONS)), numbers)


# -- the ways ---------------------------------------------------------------------------------------------------------


def ours(graph: KnowledgeGraph) -> Steps:
    """The learner's own batches, gradients and optimiser, as the training loop calls them."""
    from shopvision.graph.row_optimizer import RowAdagrad
    from shopvision.training.precision import MixedPrecision

    learner = _learner(graph)
    optimizer = RowAdagrad(learner.parameter_groups())
    precision = MixedPrecision("float32", learner.process.device)
    epoch = 0
    while True:
        epoch += 1
        for step in learner.batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            learner.gradients(step, precision)
            optimizer.step()
            yield len(step.heads) - len(step.right_of)


def dense(graph: KnowledgeGraph) -> Steps:
    """A loop as tutorials have it: embeddings, a margin loss, Adam."""
    return _plain(graph, sparse=False)


def sparse(graph: KnowledgeGraph) -> Steps:
    """The same with ``sparse=True`` and ``SparseAdam`` for the entities."""
    return _plain(graph, sparse=True)


def _plain(graph: KnowledgeGraph, *, sparse: bool) -> Steps:
    import torch
    from torch import nn
    from torch.nn import functional

    entities = nn.Embedding(len(graph.entities), DIMENSION, sparse=sparse)
    relations, matrix = nn.Embedding(len(graph.relations), DIMENSION), nn.Linear(DIMENSION, DIMENSION, bias=False)
    small = [relations.weight, matrix.weight]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam(list(entities.parameters()), lr=1e-3) if sparse
        else torch.optim.Adam(entities.parameters(), lr=1e-3),
        torch.optim.Adam(small, lr=1e-3),
    ]  # fmt: skip
    triples = torch.from_numpy(graph.triples)

    def distance(rows: torch.Tensor) -> torch.Tensor:
        head, relation, tail = rows.T
        h, t = (functional.normalize(entities(one), dim=1) for one in (head, tail))
        r = relations(relation)
        return (h + r - t).square().sum(1) + (matrix(h) - r).square().sum(1)

    while True:
        for rows in torch.randperm(len(triples)).split(BATCH):
            right = triples[rows].repeat_interleave(NEGATIVES, 0)
            wrong = right.clone()
            places = torch.randint(3, (len(right),))
            for place, size in enumerate((len(graph.entities), len(graph.relations), len(graph.entities))):
                mine = places == place
                wrong[mine, place] = torch.randint(size, (int(mine.sum()),))
            far, near = distance(wrong), distance(triples[rows]).repeat_interleave(NEGATIVES)
            loss = functional.relu(1 + near - far).mean()
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            yield len(rows)


def _learner(graph: KnowledgeGraph) -> GraphLearner:
    from shopvision.graph.config import GraphConfig
    from shopvision.graph.train import make_learner
    from shopvision.training.run import TrainingRun

    sections: dict[str, Any] = {
        "data": {"triples": "made.csv"},
        "model": {"dimension": DIMENSION},
        "train": {"batch_size": BATCH, "negatives": NEGATIVES},
    }
    return make_learner(graph, GraphConfig.model_validate(sections), TrainingRun(output=Path(tempfile.gettempdir())))


OURS, USUAL = "shopvision", "plain torch, Adam"
WAYS: dict[str, Callable[[KnowledgeGraph], Steps]] = {
    USUAL: dense,
    "plain torch, sparse gradients and SparseAdam": sparse,
    OURS: ours,
}


def _measure(way: str, triples: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.graph_training", way, str(triples), str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _child(way: str, triples: str, seconds: str) -> None:
    import torch

    torch.set_num_threads(CORES)
    steps = WAYS[way](made_graph(int(triples)))
    limit = float(seconds)
    next(steps)  # what is made once before it is no part of the rate
    started = time.perf_counter()
    learnt, from_here, counted = 0, started, 0
    for count in steps:
        learnt += count
        now = time.perf_counter()
        if now - started < 0.1 * limit:
            from_here, counted = now, learnt
        elif now - started > limit:
            break
    rate = (learnt - counted) / (time.perf_counter() - from_here)
    print(json.dumps({"triples_per_second": rate, "peak_mib": peak_mib()}), flush=True)


if __name__ == "__main__":
    _child(*sys.argv[1:])
