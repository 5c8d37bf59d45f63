"""How many tokens encoders hold: exactly the limit runs through a network of each architecture, one more does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from shopvision.encoders.text_networks import build_text
from shopvision.encoders.token_limit import positions_of, require_room, token_limit
from shopvision.errors import UserError

UNLIMITED = int(1e30)
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 24,
}  # fmt: skip
THIN = {"embedding_size": 16}
DISTILBERT = {
    "vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 24,
}  # fmt: skip
MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}


def tokenizer(limit: int = UNLIMITED) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), model_max_length=limit)


def runs(network: torch.nn.Module, tokens: int) -> bool:
    ids = torch.full((2, tokens), 5)
    try:
        with torch.inference_mode():
            network(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(
    ("model_type", "arguments", "limit"),
    [
        ("bert", SMALL, 24),
        ("electra", SMALL | THIN, 24),
        ("albert", SMALL | THIN, 24),
        ("distilbert", DISTILBERT, 24),
        ("distilbert", DISTILBERT | {"sinusoidal_pos_embds": True}, 24),
        ("deberta", SMALL, 24),
        ("roberta", SMALL | {"pad_token_id": 1}, 22),
        ("roberta", SMALL | {"pad_token_id": 0}, 23),
        ("roberta", SMALL | {"pad_token_id": 3}, 20),
        ("xlm-roberta", SMALL | {"pad_token_id": 1}, 22),
        ("camembert", SMALL | {"pad_token_id": 1}, 22),
        ("mpnet", SMALL, 22),
        ("yoso", SMALL, 24),  # whose table has two rows more
    ],
)
def test_a_table_of_positions_is_the_limit(model_type: str, arguments: dict[str, Any], limit: int) -> None:
    config = {"model_type": model_type, **arguments}
    network = build_text(config)
    assert positions_of(network) == limit
    assert runs(network, limit)
    assert not runs(network, limit + 1)
    assert token_limit(config, tokenizer()) == limit
    assert token_limit(config, tokenizer(16)) == 16  # what it was trained on may be less


@pytest.mark.parametrize(
    ("model_type", "arguments"),
    [
        ("deberta-v2", SMALL | DISENTANGLED | {"position_biased_input": False}),
        ("modernbert", SMALL | MODERN),
        ("t5", {"vocab_size": 40, "d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16}),
    ],
)
def test_distances_have_no_limit(model_type: str, arguments: dict[str, Any]) -> None:
    config = {"model_type": model_type, **arguments}
    if model_type != "t5":  # whose whole network wants a decoder's input, too
        assert runs(build_text(config), 90)
    assert token_limit(config, tokenizer()) == UNLIMITED
    assert token_limit(config, tokenizer(512)) == 512


def test_too_long_a_sequence_is_refused_with_the_limit() -> None:
    config = {"model_type": "roberta", **SMALL, "pad_token_id": 0}
    require_room(23, config, tokenizer())
    with pytest.raises(UserError, match="max_length 24 is more than the encoder's 23 tokens: use 23 or fewer"):
        require_room(24, config, tokenizer())
