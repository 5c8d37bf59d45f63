"""The family ``text_cnn``: an item is what windows of one to five of its words say most strongly.

After Kim, "Convolutional Neural Networks for Sentence Classification" (EMNLP 2014), CNN-multichannel: each word has two
vectors, of which one stays as it was found and one learns. Filters of several lengths look at both, and the greatest
value of each is kept. A window begins at every token and none at padding, so that an item's vector does not depend on
its batch. Positions are not told: a maximum asks whether something is there, not where.

The vocabulary is the shop's own. A step of training moves the whole table of the channel that learns, so that a
smaller vocabulary learns faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.text_sources import fetch_text
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families._family import TwoTowerFamily
from shopvision.matching.families._network import ItemNetwork, ItemReader
from shopvision.matching.families._parts import Origin, Parts, Start
from shopvision.matching.families.heads import vector_head
from shopvision.matching.families.learnt_words import WordCutter, entries_of, learn_words
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextItemReader, TextOptions, TextReading
from shopvision.matching.families.towers import TwoTower, TwoTowerArguments, TwoTowerOptions
from shopvision.matching.families.word_vectors import WordVectors, encoder_vectors, file_vectors
from shopvision.training.config import LocalPath


class TextCNNOptions(TwoTowerOptions):
    """Options.

    Attributes:
        text: text encoder whose word embeddings both channels begin with, see
            ``shopvision.encoders.text_sources.fetch_text``; empty for random ones.
        vectors: a file of word vectors to begin with instead, see ``word_vectors.file_vectors``.
        vocabulary: words and characters, at most: those of the training items, then the most frequent ones that the
            encoder or the file knows.
        least_count: a word of the training items is an entry if it stands in their texts so many times.
        width: of random word vectors; others have their own.
        windows: lengths of the filters, in words.
        filters: of each length.
    """

    family: str = "text_cnn"
    text: str = "wheel:minilm"
    vectors: LocalPath | None = None
    vocabulary: int = Field(30_000, ge=100)
    least_count: int = Field(2, ge=1)
    width: int = Field(128, ge=1)
    windows: tuple[int, ...] = Field((1, 2, 3, 5), min_length=1)
    filters: int = Field(36, ge=1)


class TextCNNArguments(TwoTowerArguments):
    """Arguments.

    Attributes:
        texts: how items become sequences.
        vocabulary: entries.
        width: of word vectors.
        windows: lengths of the filters.
        filters: of each length.
    """

    texts: TextReading = TextReading()
    vocabulary: int = Field(gt=0)
    width: int = Field(gt=0)
    windows: tuple[int, ...] = Field((1, 2, 3, 5), min_length=1)
    filters: int = Field(36, ge=1)


class WordTowers(TwoTower):
    """Towers of words.

    Attributes:
        words: the channel that learns.
        kept: the one that does not.
        windows: lengths of windows, in words.
        filters: for each of them.
    """

    def __init__(self, arguments: TextCNNArguments, head: nn.Module) -> None:
        """Put together."""
        windows, filters = arguments.windows, arguments.filters
        super().__init__(head, features=filters * len(windows), projection=arguments.projection)
        self.words = nn.Embedding(arguments.vocabulary, arguments.width)
        self.kept = nn.Embedding(arguments.vocabulary, arguments.width).requires_grad_(requires_grad=False)
        self.filters = nn.ModuleList(nn.Conv1d(2 * arguments.width, filters, size) for size in windows)
        self.windows, self.dropout = windows, nn.Dropout(arguments.dropout)

    def features(self, batch: Any) -> Tensor:
        """See ``TwoTower``; of a ``TokenBatch``."""
        there = batch.attention_mask.unsqueeze(1)
        # Sources differ in the length of their vectors, and within one rare words are the longest.
        channels = [functional.layer_norm(table(batch.input_ids), (table.embedding_dim,)) for table in self._tables]
        rows = self.dropout(torch.cat(channels, 2)).transpose(1, 2) * there
        found = []
        for size, convolution in zip(self.windows, self.filters, strict=True):
            said: Tensor = convolution(functional.pad(rows, (0, size - 1)))
            found.append(said.masked_fill(there == 0, -torch.inf).amax(2))
        return functional.relu(torch.cat(found, 1))

    @property
    def _tables(self) -> tuple[nn.Embedding, nn.Embedding]:
        return self.words, self.kept


@register
class TextCNN(TwoTowerFamily[TextCNNArguments, TextCNNOptions]):
    """Reads each item's text."""

    name = "text_cnn"
    reads_text = True
    arguments = TextCNNArguments
    options = TextCNNOptions

    def start(self, options: TextCNNOptions, texts: TextOptions, items: Sequence[Item]) -> Start[TextCNNArguments]:
        """See ``Family``."""
        reading = TextReading.of_items(texts, items)
        cutter = WordCutter(chinese_words=texts.segmenter == "jieba")
        vectors, origins = _known(options, cutter)
        more = () if vectors is None else filter(cutter.is_word, vectors.words)
        tokenizer = learn_words(
            _texts(reading, items), cutter, least=options.least_count, most=options.vocabulary, more=more
        )
        arguments = TextCNNArguments(
            **self.settled(options),
            texts=reading,
            vocabulary=len(tokenizer),
            width=options.width if vectors is None else vectors.width,
            windows=options.windows,
            filters=options.filters,
            projection=options.projection,
        )
        weights = {} if vectors is None else _both_channels(vectors, dict(entries_of(tokenizer)), len(tokenizer))
        return Start(arguments=arguments, parts=Parts(tokenizer=tokenizer), weights=weights, origins=origins)

    def build(self, arguments: TextCNNArguments, parts: Parts) -> ItemNetwork:  # noqa: ARG002 - see TwoTowerFamily
        """See ``TwoTowerFamily``."""
        if min(arguments.windows) < 1:
            raise UserError(f"windows {list(arguments.windows)}: a window holds a word at least.")
        dimension = arguments.projection or arguments.filters * len(arguments.windows)
        return WordTowers(arguments, vector_head(arguments.axes, dimension, dropout=arguments.dropout))

    def reader(self, arguments: TextCNNArguments, parts: Parts) -> ItemReader[Any]:
        """See ``TwoTowerFamily``."""
        return TextItemReader(arguments.texts.packer(parts.tokenizer, None))


def _known(options: TextCNNOptions, cutter: WordCutter) -> tuple[WordVectors | None, Sequence[Origin]]:
    """What is known of words before, and whose knowledge it is."""
    if options.vectors is not None:
        found = file_vectors(options.vectors, cutter.normalizer.normalize_str)
        return found, [Origin(name="words", source=f"vectors:{options.vectors.name}", licence="unknown")]
    if not options.text:
        return None, ()
    source = fetch_text(options.text)
    return encoder_vectors(source), [Origin(name="words", source=source.source, licence=source.licence)]


def _texts(reading: TextReading, items: Iterable[Item]) -> Iterable[str]:
    builder = reading.text_builder()
    for item in items:
        text = builder.item(item)
        yield from (text.title, *text.pieces)


def _both_channels(vectors: WordVectors, entries: dict[int, str], count: int) -> dict[str, dict[str, Tensor]]:
    """Tensors of both tables; the one that stays has zeros for what nothing is known of, the other learns these."""
    table = np.zeros((count, vectors.width), np.float32)
    for number, text in entries.items():
        if (vector := vectors.of(text)) is not None:
            table[number] = vector
    kept = torch.from_numpy(table)
    spread = float(kept[kept.any(1)].std()) if bool(kept.any()) else 1.0
    drawn = torch.randn(kept.shape, generator=torch.Generator().manual_seed(0)) * spread
    learns = torch.where(kept.any(1, keepdim=True), kept, drawn)
    return {"words": {"weight": learns}, "kept": {"weight": kept}}
