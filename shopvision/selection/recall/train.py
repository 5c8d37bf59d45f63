"""Training a recall model: data, encoders, the loop, and at the end a model version folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import Measured
from shopvision.evaluation.report import EvaluationReport
from shopvision.graph.relations import RELATIONS
from shopvision.graph.triples import Triple, catalogue_triples, read_triples
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.selection.recall.calibrate import ScoreThreshold, choose_threshold
from shopvision.selection.recall.card import SCORE, save_recall
from shopvision.selection.recall.config import DataConfig, RecallConfig
from shopvision.selection.recall.data import RecallData, read_items, read_pairs, require_apart, right_pictures, split
from shopvision.selection.recall.graph_batches import GraphSampler, learnt_triples
from shopvision.selection.recall.learner import KS, RecallLearner, SearchRows, TrainingRows
from shopvision.selection.recall.measure import measure_retrieval
from shopvision.selection.recall.preparation import Corpus, Encoders, fetch_encoders, prepare_corpus
from shopvision.settings import get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.distributed import Process
from shopvision.training.loop import fit
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class RecallReport(TrainingReport):
    """What the training of a recall model gave.

    Attributes:
        texts: per split, how many were trained and validated on.
        gallery: pictures that validation searches among.
        valid: metrics of validation, over which the epoch was chosen.
        triples: of the knowledge graph; 0 without one.
        score: the threshold of its card, and what it keeps.
    """

    texts: dict[str, int]
    gallery: int
    valid: dict[str, Measured]
    triples: int
    score: ScoreThreshold

    def report(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        graph = {"triples": self.triples} if self.triples else {}
        told = self.summary("texts", self.texts, **self.score.facts(), **graph)
        return replace(told, metrics=self.valid, counts={**told.counts, "pictures searched among": self.gallery})


def train_recall(config: RecallConfig, run: TrainingRun) -> RecallReport | None:
    """Train, and write the best epoch's model version to ``model`` in the folder of the run.

    Returns:
        The report in the main process, None in the others.

    Raises:
        UserError: the data, the configuration or the encoders cannot be used; nothing was trained.
        TransientError: a source of pictures is away.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    require_fresh(run.output, resume=run.resume)
    splits = read_splits(config)
    run.process.require_shares(config.train.batch_size, len(splits["train"].examples))
    if config.graph.weight and config.graph.batch % run.process.world:
        raise UserError(f"graph.batch {config.graph.batch} is not shared out evenly among {run.process.world}.")
    triples = _triples(config, splits)
    present = {triple.relation for triple in triples}
    relations = tuple(name for name in RELATIONS if name in present)
    encoders = fetch_encoders(config, relations)
    encoders.network.to(run.process.device)
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        texts, pictures = _everything(splits, triples)
        frozen = config.model.frozen
        corpus = prepare_corpus(encoders, run, door, texts=texts, pictures=pictures, frozen=frozen)
        splits, triples = _readable(splits, triples, corpus)
        learner = _learner(config, encoders, splits, triples, corpus, process=run.process)
        fingerprint = {name: data.fingerprint() for name, data in splits.items()}
        identity = {**config.model_dump(mode="json"), "data content": fingerprint, "triples": len(triples)}
        result = fit(learner, config.train, run, identity=identity)
        found = learner.found()
    if not run.process.is_main:
        return None
    score = choose_threshold(found.texts, found.pictures, found.right, seed=config.train.seed)
    measured = measure_retrieval(found.retrieval, KS)
    chance = {f"random_{name}": one.random for name, one in measured.items()}
    facts = {
        "training_data": f"{config.data.file.name}, {len(splits['train'].examples)} texts, content sha256 "
        + fingerprint["train"],
        "metrics": {k: round(value, 6) for k, value in {**result.metrics, **chance, **score.metrics()}.items()},
        "thresholds": {SCORE: round(score.value, 6)},
    }
    write = partial(_write, config, encoders, facts)
    return RecallReport(
        **run.finish(result, write, corpus.reasons),
        texts={name: len(data.examples) for name, data in splits.items()},
        gallery=len(found.pictures),
        valid=measured,
        triples=len(triples),
        score=score,
    )


def read_splits(config: RecallConfig) -> dict[str, RecallData]:
    """The data of ``train`` and ``valid``, with no text and no picture in both.

    Raises:
        UserError: the data cannot be used.
    """
    source = config.data
    data = _read(config, source.file, source)
    if source.valid is None:
        train, valid = split(data, source.valid_fraction, config.train.seed)
    else:
        train, valid = data, _read(config, source.valid, source)
        require_apart(train, valid)
    return {"train": train, "valid": valid}


def _read(config: RecallConfig, path: Path, source: DataConfig) -> RecallData:
    if source.items is None:
        return read_pairs(path, source.images)
    return read_items(path, source.images, form=config.model.text_form)


def _triples(config: RecallConfig, splits: Mapping[str, RecallData]) -> list[Triple]:
    """What the graph says of training; nothing where it has no weight."""
    if not config.graph.weight:
        return []
    if config.graph.triples is not None:
        said = read_triples(config.graph.triples, config.data.images)
    else:
        said = list(catalogue_triples(splits["train"].items()))
    held_out = splits["valid"]
    kept = learnt_triples(said, [one.text for one in held_out.examples], held_out.pictures())
    if not kept:
        raise UserError("The knowledge graph says nothing of the texts of training: set graph.weight = 0.")
    return kept


def _everything(splits: Mapping[str, RecallData], triples: Sequence[Triple]) -> tuple[list[str], list[str]]:
    """Every text and every picture, once."""
    data = splits.values()
    tails = {kind: [one.tail for one in triples if one.tail_kind == kind] for kind in ("text", "picture")}
    texts = chain(*(one.texts() for one in data), (triple.head for triple in triples), tails["text"])
    pictures = chain(*(one.pictures() for one in data), tails["picture"])
    return list(dict.fromkeys(texts)), list(dict.fromkeys(pictures))


def _readable(
    splits: Mapping[str, RecallData], triples: Sequence[Triple], corpus: Corpus
) -> tuple[dict[str, RecallData], list[Triple]]:
    """The splits and triples without pictures that cannot be read.

    Raises:
        UserError: nothing is left of a split.
    """
    good = corpus.readable_pictures
    kept = {name: data.readable(good) for name, data in splits.items()}
    for name, data in kept.items():
        if not data.examples:
            reason = next(iter(corpus.reasons.values()), "see the main process")
            raise UserError(f"Not one text for {name} has a readable picture ({reason}): check the picture folder.")
    return kept, [one for one in triples if one.tail_kind == "text" or one.tail in good]


def _learner(
    config: RecallConfig,
    encoders: Encoders,
    splits: Mapping[str, RecallData],
    triples: Sequence[Triple],
    corpus: Corpus,
    *,
    process: Process,
) -> RecallLearner:
    row_of_text = {text: row for row, text in enumerate(corpus.texts)}
    row_of_picture = {uri: row for row, uri in enumerate(corpus.pictures)}
    train, valid = splits["train"].examples, splits["valid"]
    gallery = valid.pictures()
    places = _rows(gallery, row_of_picture)
    graph = None
    if triples:
        graph = GraphSampler(
            triples,
            encoders.arguments.relations,
            row_of_text,
            row_of_picture,
            batch=config.graph.batch,
            seed=config.train.seed,
        )
    return RecallLearner(
        encoders.network,
        config,
        corpus.inputs,
        encoders.image.preprocessing,
        train=TrainingRows(
            [_rows((one.text, *one.others), row_of_text) for one in train],
            [_rows(one.pictures, row_of_picture) for one in train],
            corpus.contents,
            [one.category for one in train],
        ),
        valid=SearchRows(
            _rows([one.text for one in valid.examples], row_of_text),
            places,
            right_pictures(valid, gallery, corpus.contents[places].tolist()),
        ),
        graph=graph,
        process=process,
    )


def _rows(names: Sequence[str], row_of: Mapping[str, int]) -> NDArray[np.int64]:
    return np.array([row_of[name] for name in names], np.int64)


def _write(config: RecallConfig, encoders: Encoders, facts: Mapping[str, Any], folder: Path) -> ModelCard:
    return save_recall(
        folder,
        encoders.network,
        encoders.arguments,
        encoders.text.tokenizer,
        encoders.image.preprocessing,
        name=config.model.name,
        source=f"train recall: {encoders.text.source} + {encoders.image.card.source}",
        licence=f"text encoder {encoders.text.licence}, image encoder {encoders.image.card.licence}",
        **facts,
    )
