"""What frozen text encoders say of texts, computed once per machine and kept on disk; see ``features``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from shopvision.training.features import Features, FeatureStore, OnProgress, digest

if TYPE_CHECKING:
    from shopvision.encoders.text_sources import TextSource

Text = TypeVar("Text")
TEXTS_AT_ONCE = 64


@torch.inference_mode()
def text_features(
    texts: Sequence[Text],
    written: Callable[[Text], str],
    store: FeatureStore,
    encode: Callable[[Sequence[Text]], Tensor],
    on_progress: OnProgress,
) -> Features:
    """Features of texts, each distinct one encoded once.

    Args:
        texts: n texts, or what is made of several.
        written: all of one in one string: the same for equal ones alone.
        store: of the encoder.
        encode: some of them -> (k, d), not normalised.
        on_progress: called with (done, all).
    """
    strings = [written(text) for text in texts]
    keys = [hashlib.sha256(string.encode(errors="surrogatepass")).digest() for string in strings]
    with store.writing():
        new = {
            key: (len(string), text) for key, string, text in zip(keys, strings, texts, strict=True) if key not in store
        }
        # Texts of like length side by side: less padding to compute.
        waiting = sorted(((length, key, text) for key, (length, text) in new.items()), key=lambda one: one[:2])
        for start in range(0, len(waiting), TEXTS_AT_ONCE):
            chunk = waiting[start : start + TEXTS_AT_ONCE]
            vectors = torch.nn.functional.normalize(encode([text for *_, text in chunk]).float(), dim=1)
            store.append([key for _, key, _ in chunk], vectors.half().cpu().numpy())
            on_progress(start + len(chunk), len(waiting))
    return Features(store.vectors(), store.rows(keys))


def text_encoder_digest(source: TextSource, *reading: object) -> str:
    """The name of all that features of a text encoder depend on.

    Args:
        source: the encoder.
        reading: how texts become its tokens, JSON-able.
    """
    weights = {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in source.tensors.items()
    }
    vocabulary = source.tokenizer.backend_tokenizer.to_str()
    return digest(digest(weights), source.config, vocabulary, source.pooling, *reading)
