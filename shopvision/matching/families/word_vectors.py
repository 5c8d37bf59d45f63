"""Vectors that are known of words before anything is learnt: from a file of them, or of a pretrained text encoder."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.text_networks import build_text
from shopvision.errors import UserError

if TYPE_CHECKING:
    from shopvision.encoders.text_sources import TextSource

_WORD_MARKS = ("\u2581", "\u0120")  # how SentencePiece and byte-level BPE write that a word begins
_PIECE = "##"


@dataclass(frozen=True)
class WordVectors:
    """What a source knows of words.

    Attributes:
        width: length of the vectors.
        words: what it knows as words, the most important first.
        of: text -> (width,) float32; None where nothing is known.
    """

    width: int
    words: tuple[str, ...]
    of: Callable[[str], NDArray[np.float32] | None]


def encoder_vectors(source: TextSource) -> WordVectors:
    """Word embeddings of a text encoder; a word that it reads in pieces has the mean of theirs."""
    with torch.device("meta"):
        network = build_text(source.config)
    embeddings = network.get_input_embeddings()  # type: ignore[operator] # transformers is untyped
    place = next(name for name, module in network.named_modules() if module is embeddings)
    table: NDArray[np.float32] = source.tensors[f"{place}.weight"].numpy()
    tokenizer, backend = source.tokenizer, source.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    silent = {*tokenizer.all_special_ids}

    def of(text: str) -> NDArray[np.float32] | None:
        ids = backend.encode(text, add_special_tokens=False).ids
        if not ids or silent & set(ids):
            return None
        mean: NDArray[np.float32] = table[ids].mean(0)
        return mean

    numbers = tokenizer.get_vocab()
    return WordVectors(table.shape[1], tuple(_whole_words(sorted(numbers, key=numbers.__getitem__))), of)


def file_vectors(path: Path, normalise: Callable[[str], str]) -> WordVectors:
    """Vectors of a text file as word2vec, GloVe and fastText write it: a line for each word, the most frequent first.

    Args:
        path: UTF-8; a first line of two numbers, which some files have, is passed over.
        normalise: how words are spelled here; of words that are then one, the first is taken.

    Raises:
        UserError: the file cannot be read, or a line holds something else; the message names it.
    """
    words: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for word, vector in _lines(file, path):
                words.append(normalise(word))
                vectors.append(vector)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}): name a text file of word vectors.") from None
    if not vectors:
        raise UserError(f"{path} holds no vectors: name a text file with a word and its numbers on each line.")
    rows: dict[str, int] = {}
    for row, word in enumerate(words):
        rows.setdefault(word, row)

    def of(text: str) -> NDArray[np.float32] | None:
        row = rows.get(text)
        return None if row is None else vectors[row]

    return WordVectors(len(vectors[0]), tuple(rows), of)


def _lines(file: io.TextIOBase, path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    width = 0
    for number, line in enumerate(file, start=1):
        values = line.rstrip().split(" ")
        if number == 1 and len(values) == 2 and all(value.isdigit() for value in values):
            continue
        width = width or len(values) - 1
        word = " ".join(values[:-width]) if width else ""  # GloVe has words of several
        try:
            vector = np.array(values[len(values) - width :], np.float32)
        except ValueError:
            vector = np.zeros(0, np.float32)
        if not word or len(vector) != width or not np.isfinite(vector).all():
            raise UserError(f"{path}, line {number}: a word and {width or 'some'} numbers are wanted, as in all lines.")
        yield word, vector


def _whole_words(tokens: list[str]) -> Iterator[str]:
    """Those of a vocabulary's entries that are words and no pieces of some."""
    mark = next((mark for mark in _WORD_MARKS if any(token.startswith(mark) for token in tokens)), None)
    for token in tokens:
        if mark is None and not token.startswith(_PIECE):
            yield token
        elif mark is not None and token.startswith(mark) and token != mark:
            yield token.removeprefix(mark)
