"""Training the vectors of a knowledge graph: triples, the loop, and at the end a model version folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import Measured
from shopvision.evaluation.report import EvaluationReport
from shopvision.graph.card import save_graph
from shopvision.graph.config import DataConfig, GraphConfig
from shopvision.graph.knowledge import KnowledgeGraph, file_statements, hold_out, item_statements
from shopvision.graph.learner import GraphLearner
from shopvision.graph.link_prediction import LinkTask
from shopvision.graph.negatives import Corruption
from shopvision.graph.row_optimizer import RowAdagrad
from shopvision.graph.vectors import GraphVectors
from shopvision.items.item_files import read_items
from shopvision.models.card import ModelCard
from shopvision.training.checkpointing import require_fresh
from shopvision.training.loop import fit
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class GraphReport(TrainingReport):
    """What the training gave.

    Attributes:
        sizes: of the graph: entities, relations, and triples for training and held out.
        valid: link prediction of the held-out triples that were asked for, over which the epoch was chosen.
        asked: how many these were.
    """

    sizes: dict[str, int]
    valid: dict[str, Measured]
    asked: int

    def report(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        told = self.summary("triples", {"valid": self.asked, "training": self.sizes["training"]})
        counts = {"held-out triples": self.asked, **{f"{name} in all": size for name, size in self.sizes.items()}}
        return replace(told, metrics=self.valid, counts=counts)


def train_graph(config: GraphConfig, run: TrainingRun) -> GraphReport:
    """Train, and write the best epoch's model version to ``model`` in the folder of the run.

    Raises:
        UserError: the data or the configuration cannot be used, or several processes were started; nothing was trained.
        JobError: the loss is not finite.
    """
    require_fresh(run.output, resume=run.resume)
    if run.process.world > 1:
        raise UserError("A graph is learnt by one process, in minutes: start it without torchrun.")
    graph = read_graph(config.data)
    learner = make_learner(graph, config, run)
    identity = {**config.model_dump(mode="json"), "data content": graph.fingerprint()}
    patience = config.train.patience if config.train.select_by != "last" else None
    result = fit(learner, config.train, run, identity=identity, patience=patience, optimizer=RowAdagrad)
    valid = learner.task.ranks(learner.network).measured()
    chance = {f"random_{name}": one.random for name, one in valid.items()}
    digest = graph.fingerprint()
    facts = {
        "name": config.model.name,
        "source": "train graph",
        "training_data": f"{config.data.file.name}, {len(graph):,} triples, content sha256 {digest}",
        "metrics": {name: round(value, 6) for name, value in {**result.metrics, **chance}.items()},
    }
    return GraphReport(
        **run.finish(result, lambda folder: _write(folder, graph, learner.network, facts), {}),
        sizes={
            "entities": len(graph.entities),
            "relations": len(graph.relations),
            "training": learner.examples,
            "held out": len(graph) - learner.examples,
        },
        valid=valid,
        asked=len(learner.task.asked),
    )


def read_graph(data: DataConfig) -> KnowledgeGraph:
    """What the data says.

    Raises:
        UserError: the file cannot be used, or says too little.
    """
    if data.items is None:
        return KnowledgeGraph.of_statements(file_statements(data.file))
    return KnowledgeGraph.of_statements(item_statements(read_items(data.items).values(), data.fewest))


def make_learner(graph: KnowledgeGraph, config: GraphConfig, run: TrainingRun) -> GraphLearner:
    """What trains the graph's vectors.

    Raises:
        UserError: no triple can be held out, or the graph is too large.
    """
    settings, seed = config.train, config.train.seed
    held = hold_out(graph.triples, config.data.held_out, seed)
    rows = np.flatnonzero(held)
    if not len(rows):
        raise UserError(
            f"Of {len(graph):,} triples none can be held out: each is all that is said of an item, a value or an "
            "attribute. Give items with several attributes, of values that others have too, or lower data.fewest."
        )
    asked = np.sort(np.random.default_rng([seed, 1]).permutation(rows)[: settings.asked])
    sizes = len(graph.entities), len(graph.relations)
    learnt = graph.triples[~held]
    corruption = Corruption(learnt, *sizes, relation_share=settings.relation_negatives, alike=settings.alike)
    torch.manual_seed(seed)
    network = GraphVectors(*sizes, config.model.dimension).to(run.process.device)
    task = LinkTask(graph.triples, asked)
    return GraphLearner(network, settings, run.process, triples=learnt, corruption=corruption, task=task)


def _write(folder: Path, graph: KnowledgeGraph, vectors: GraphVectors, facts: Mapping[str, Any]) -> ModelCard:
    return save_graph(folder, vectors, graph.entities, graph.relations, **facts)
