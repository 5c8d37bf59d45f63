"""The search index: immutable generations in object storage, published from Postgres, read without it."""

from shopvision.index.gate import GenerationRefused
from shopvision.index.generation import Generation, Hit
from shopvision.index.publish import PublishReport, publish
from shopvision.index.reader import IndexReader
from shopvision.index.upkeep import (
    CollectReport,
    GenerationSummary,
    VerifyReport,
    collect_garbage,
    compact,
    list_generations,
    rollback,
    verify,
)

__all__ = [
    "CollectReport",
    "Generation",
    "GenerationRefused",
    "GenerationSummary",
    "Hit",
    "IndexReader",
    "PublishReport",
    "VerifyReport",
    "collect_garbage",
    "compact",
    "list_generations",
    "publish",
    "rollback",
    "verify",
]
