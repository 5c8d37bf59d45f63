"""Seeded CLIKs of a few thousand weights, with a real BERT, a real timm network and a real tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture, ModelCard
from shopvision.selection.clik.card import ClikArguments, build_clik, save_clik
from shopvision.selection.clik.model import Clik

WORDS = ("summer", "autumn", "dress", "shoe", "linen", "sale", "women", "men", "봄", "여름", "가을", "겨울", "##s")
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
BERT = {
    "model_type": "bert", "vocab_size": len(SPECIAL) + len(WORDS), "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 128, "type_vocab_size": 2,
}  # fmt: skip
PREPROCESSING = Preprocessing(size=(32, 32), interpolation="bilinear", resize_mode="squash")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=128, **{f"{role}_token": text for role, text in SPECIAL.items()}
    )


def arguments(image: str = "test_vit", **changes: Any) -> ClikArguments:
    size = {"img_size": 32} if "vit" in image else {}
    fields = {
        "text_config": BERT,
        "pooling": "pooler",
        "image": Architecture(name=image, arguments={"num_classes": 0} | size),
        "feature_dim": 8,
        "bank_size": 6,
    }
    return ClikArguments(**(fields | changes))


def tiny_clik(wanted: ClikArguments, seed: int = 1) -> Clik:
    """Every tensor random, also those that start as zeros or ones, so that a lost one shows."""
    torch.manual_seed(seed)
    clik = build_clik(wanted)
    with torch.no_grad():
        for name, tensor in clik.state_dict().items():
            if tensor.is_floating_point() and name != "memory_bank":
                tensor.add_(0.05 * torch.rand_like(tensor))
    return clik


def save_tiny(
    folder: Path, wanted: ClikArguments, seed: int = 1, tokenizer: PreTrainedTokenizerFast | None = None
) -> ModelCard:
    tokenizer = tokenizer or tiny_tokenizer()
    return save_clik(folder, tiny_clik(wanted, seed), wanted, tokenizer, PREPROCESSING, name="tiny", source="test")
