"""Blocking: which pairs of items are worth the look of a model."""

from shopvision.matching.blocking.candidates import candidate_pairs, pairs_of_items
from shopvision.matching.blocking.merging import CandidatePair
from shopvision.matching.blocking.recall import BlockingRecall, blocking_recall, measure

__all__ = ["BlockingRecall", "CandidatePair", "blocking_recall", "candidate_pairs", "measure", "pairs_of_items"]
