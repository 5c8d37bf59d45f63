"""Blocking: which pairs of items are worth the look of a model."""

from shopvision.matching.blocking.candidates import candidate_pairs, pairs_of_items
from shopvision.matching.blocking.options import SOURCES, TEXT_SOURCES, BlockingOptions, CandidatePair, Source
from shopvision.matching.blocking.recall import BlockingRecall, blocking_recall, measure

__all__ = [
    "SOURCES", "TEXT_SOURCES", "BlockingOptions", "BlockingRecall", "CandidatePair", "Source", "blocking_recall",
    "candidate_pairs", "measure", "pairs_of_items",
]  # fmt: skip
