"""Seeded pair models of a few thousand weights, with a real BERT, a real timm network and a real tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shopvision.images.preprocessing import Preprocessing
from shopvision.matching.families._parts import FamilyArguments, Parts
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.card import save_matcher
from shopvision.matching.families.image_encoders import build_frozen_image
from shopvision.matching.families.pair_model import PairModel, build_model
from shopvision.matching.families.registry import find_family
from shopvision.models.card import Architecture, ModelCard

WORDS = (
    "apple", "watch", "red", "blue", "shoe", "nike", "band", "query", "color", "size", "price", "brand", "##s", "a",
    "b", "c", ":", ";", ",", "1", "2", "3",
)  # fmt: skip
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
BERT = {
    "model_type": "bert", "vocab_size": len(SPECIAL) + len(WORDS) + 1, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "type_vocab_size": 2,
}  # fmt: skip
PREPROCESSING = Preprocessing(size=(32, 32), interpolation="bilinear", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
THRESHOLDS = {"same": 0.9, "decision": 0.5, "different": 0.1}
ONE = Axes(interaction="one_tower", head="pair", loss="ce")
COSINE = Axes(interaction="two_tower", head="metric", similarity="cosine", loss="bce")
RESNET = Architecture(name="test_resnet", arguments={"num_classes": 0})


def tiny_tokenizer(image_token: str | None = "[unused99]") -> PreTrainedTokenizerFast:
    words = [*SPECIAL.values(), *WORDS, image_token or "##z"]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # As published files have it: both would spoil the parts.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=6)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **{f"{role}_token": text for role, text in SPECIAL.items()}
    )


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """As XLM-R's: words begin with a mark, ``<s>`` and ``</s>`` are the special tokens."""
    scored = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")] + [("▁", -4.0)]
    scored += [(f"▁{word}", -6.0) for word in WORDS]
    scored += [(letter, -9.0) for letter in sorted(set("".join(WORDS)) | {":", ";", ","})]
    tokenizer = Tokenizer(models.Unigram(scored, 3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **{f"{role}_token": token for role, token in roles.items()}
    )


TEXT_FIELDS = {"builder", "segmenter", "compare_codes", "prefix", "statistics", "max_length"}


def arguments(family: str, axes: Axes, **changes: Any) -> Any:
    """Arguments of a tiny model; those of its texts may be given beside the others."""
    fields: dict[str, Any] = {"family": family, "axes": axes}
    texts = {"max_length": 32} | {name: value for name, value in changes.items() if name in TEXT_FIELDS}
    if "text" in family:
        fields |= {"text_config": BERT, "pooling": "mean", "texts": texts}
    if "image" in family:
        fields |= {"image": RESNET}
    rest = {name: value for name, value in changes.items() if name not in TEXT_FIELDS}
    return find_family(family).arguments.model_validate(fields | rest)


def tiny_parts(wanted: FamilyArguments) -> Parts:
    family = find_family(wanted.family)
    torch.manual_seed(0)
    return Parts(
        tokenizer=tiny_tokenizer() if family.reads_text else None,
        preprocessing=PREPROCESSING if family.reads_pictures else None,
        image_encoder=build_frozen_image(RESNET) if family.pictures == "features" else None,
    )


def tiny_model(wanted: FamilyArguments, seed: int = 1) -> PairModel:
    """Every tensor random, also those that start as zeros or ones, so that a lost one shows."""
    parts = tiny_parts(wanted)
    torch.manual_seed(seed)
    model = build_model(wanted, parts)
    with torch.no_grad():
        for tensor in model.network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand_like(tensor))
    return model


def tiny_network(wanted: FamilyArguments, seed: int = 1) -> Any:
    return tiny_model(wanted, seed).network


def save_tiny(folder: Path, wanted: FamilyArguments, seed: int = 1, **changes: Any) -> ModelCard:
    """A model version of these arguments in ``folder``."""
    return save_model(folder, tiny_model(wanted, seed), **changes)


def save_model(folder: Path, model: PairModel, **changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "tiny", "source": "test", "calibration": {"method": "temperature", "scale": 2.0, "shift": 0.5},
        "thresholds": THRESHOLDS,
    }  # fmt: skip
    return save_matcher(folder, model, **(fields | changes))
