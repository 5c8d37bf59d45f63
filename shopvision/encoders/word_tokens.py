"""Tokenizers of Chinese BERTs that leave words between blanks whole, as models want that were trained on such texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def cut_at_blanks_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let a tokenizer no longer take every Chinese character for a word of its own; changed in place.

    A word between blanks then becomes its longest pieces (``手``, ``##机``) instead of characters that know nothing of
    each other's word (``手``, ``机``). Tokenizers of other kinds, which cut at blanks anyway, stay as they are.
    """
    from tokenizers.normalizers import BertNormalizer

    found = tokenizer.backend_tokenizer.normalizer
    if isinstance(found, BertNormalizer) and found.handle_chinese_chars:
        tokenizer.backend_tokenizer.normalizer = BertNormalizer(
            clean_text=found.clean_text,
            handle_chinese_chars=False,
            strip_accents=found.strip_accents,
            lowercase=found.lowercase,
        )
