"""A page with the pairs that a model gets wrong, and those that it gets right by a hair, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shopvision.images import PictureDoor
from shopvision.items.item import Item
from shopvision.items.side_by_side import side_by_side
from shopvision.items.text_normalisation import normalise
from shopvision.items.word_overlap import WORD, distinct_words
from shopvision.matching.fitting.evaluate import MatchingReport
from shopvision.reports import render_page

MOST_ERRORS = 1000  # of each kind
BORDERLINE = 50
TEXT_CHARACTERS = 600
ITEM_FIELDS = ("title", "category", "brand", "price")

Marked = list[tuple[str, bool]]


@dataclass(frozen=True)
class PairError:
    """A pair worth a look.

    Attributes:
        row: of the pair in the report's table.
        kind: ``wrong`` (called the same item, labelled different), ``missed`` (the other way round), or ``borderline``
            (right, but near the threshold).
        probability: of "the same item".
        verdict: ``same``, ``different`` or ``review``: what the job would have done with it.
    """

    row: int
    kind: str
    probability: float
    verdict: str


@dataclass(frozen=True)
class Field:
    """A line of the comparison: text in parts, each with whether the other side has no such word."""

    name: str
    left: Marked
    right: Marked


def matching_errors(report: MatchingReport, *, borderline: int = BORDERLINE) -> list[PairError]:
    """All false positives, then all false negatives, the most certain mistakes first; then the nearest right pairs."""
    probabilities, truth = report.probabilities, report.table.labels == 1
    decision = report.thresholds["decision"]
    found = probabilities >= decision
    distance = np.abs(probabilities - decision)

    def of(kind: str, mask: NDArray[np.bool_], nearest: int) -> Iterator[PairError]:
        rows = np.flatnonzero(mask)
        for row in rows[np.argsort(nearest * distance[rows], kind="stable")].tolist():
            yield PairError(row, kind, float(probabilities[row]), str(report.called[row]))

    return [
        *of("wrong", found & ~truth, -1),
        *of("missed", ~found & truth, -1),
        *list(of("borderline", found == truth, 1))[:borderline],
    ]


def write_error_page(
    output: Path, report: MatchingReport, door: PictureDoor | None = None, *, most: int = MOST_ERRORS
) -> None:
    """Write the page, with its pictures inside.

    Args:
        output: the HTML file.
        report: what ``evaluate_matcher`` found.
        door: that pictures come through; None shows none.
        most: pairs of each kind that are shown; what is left out is said.

    Raises:
        UserError: the file cannot be written.
    """
    errors = matching_errors(report)
    kinds = {kind: [error for error in errors if error.kind == kind] for kind in ("wrong", "missed", "borderline")}
    shown = {kind: [_Shown(report, error) for error in of[:most]] for kind, of in kinds.items()}
    items = report.table.items
    rows = set() if door is None else {row for of in shown.values() for pair in of for row in pair.rows}
    metrics = report.metrics
    render_page(
        "pair_errors.html",
        output,
        {row: items[row].picture for row in rows if items[row].picture},
        door,
        title="Pairs that the model gets wrong",
        subtitle="Words that only one side has are marked. The most certain mistakes come first: look there for wrong "
        "labels as well.",
        facts=[
            ("model", report.model),
            ("pairs", f"{len(report.table):,}"),
            *((name, f"{metrics[name].value:.3f}") for name in ("f1", "precision", "recall")),
            ("threshold of the decision", f"{report.thresholds['decision']:.3f}"),
            ("called the same, wrongly", f"{len(kinds['wrong']):,}"),
            ("missed", f"{len(kinds['missed']):,}"),
            ("pairs for review", f"{report.verdicts['review_share'].value:.1%}"),
        ],
        kinds=shown,
        left_out={kind: max(len(of) - most, 0) for kind, of in kinds.items()},
    )


class _Shown:
    """A pair as the template shows it."""

    def __init__(self, report: MatchingReport, error: PairError) -> None:
        table = report.table
        self.rows = int(table.left[error.row]), int(table.right[error.row])
        self.items = tuple(table.items[row] for row in self.rows)
        self.error = error
        self.is_same = bool(table.labels[error.row] == 1)
        self.fields = compare(*self.items)
        words = [error.kind, error.verdict]
        for item in self.items:
            words += [item.item_id, item.title, item.category, item.brand]
        self.text = " ".join(words).lower()


def compare(left: Item, right: Item) -> list[Field]:
    """Both items line by line: title, category, brand, price, every attribute, description; empty lines left out."""
    lines = [(name, *texts) for name, texts in side_by_side((left, right), ITEM_FIELDS)]
    lines.append(("description", left.description, right.description))
    return [Field(name, *mark(a, b)) for name, a, b in lines if a or b]


def mark(left: str, right: str) -> tuple[Marked, Marked]:
    """Both texts in parts, those words marked that the other has not; capitals do not matter, long texts are cut.

    Beside an empty text nothing is marked: it would be all.
    """
    texts = [_cut(left), _cut(right)]
    return _parts(texts[0], distinct_words(texts[1])), _parts(texts[1], distinct_words(texts[0]))


def _parts(text: str, others: set[str]) -> Marked:
    parts: Marked = []
    end = 0
    for word in WORD.finditer(text):
        if others and word[0].casefold() not in others:
            parts += [(text[end : word.start()], False), (word[0], True)]
            end = word.end()
    parts.append((text[end:], False))
    return [part for part in parts if part[0]]


def _cut(text: str) -> str:
    plain = normalise(text)
    return plain if len(plain) <= TEXT_CHARACTERS else plain[:TEXT_CHARACTERS] + "…"
