"""The family ``text_fields_one_tower`` against plain BERT passes over each field, summed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.families.text_fields_one_tower import (
    FieldTower,
    TextFieldsOneTower,
    TextFieldsOneTowerArguments,
    TextFieldsOneTowerOptions,
)
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.fitting.config import MatcherConfig
from tests.unit.matching.tiny_matcher import BERT, ONE, tiny_model, tiny_tokenizer

ITEMS = [
    Item("a", title="red shoe", category="shoe", brand="nike", attributes={"size": ("1", "2"), "color": ("red",)}),
    Item("b", title="blue shoe shoe shoe shoe", category="shoe", industry="a b", description="nike"),
    Item("c", attributes={"size": ("3",)}, price="1"),
]
FIELDS = {"title": 12, "attributes": 32, "category": 8, "industry": 8}


def tower(**changes: Any) -> Any:
    fields: dict[str, Any] = {
        "family": TextFieldsOneTower.name, "axes": ONE, "text_config": BERT, "fields": FIELDS, "pooling": "cls",
    }  # fmt: skip
    return tiny_model(TextFieldsOneTowerArguments(**fields | changes))


def passes(model: Any, left: list[int], right: list[int]) -> list[list[str]]:
    """The words of each field's pass, of each pair."""
    reader = model.reader
    batch = reader.batch(reader.read(ITEMS), np.array(left), np.array(right), None)
    tokenizer = tiny_tokenizer()
    return [
        [" ".join(tokenizer.convert_ids_to_tokens(row[row > 0].tolist())) for row in tokens.input_ids]
        for tokens in batch.passes
    ]


def test_each_field_of_a_pair_is_a_sequence_of_its_own() -> None:
    titles, attributes, categories, industries = passes(tower(), [0, 0], [1, 2])
    # Twelve tokens: the longer side loses its last ones.
    assert titles == ["[CLS] red shoe [SEP] blue shoe shoe shoe shoe [SEP]", "[CLS] red shoe [SEP] [SEP]"]
    size = "size : 1 , 2 ; color : red ;"
    assert attributes == [
        f"[CLS] [SEP] {size} [SEP] [SEP] [SEP]",
        f"[CLS] [SEP] {size} [SEP] [SEP] size : 3 ; [SEP]",
    ]
    assert categories == ["[CLS] shoe [SEP] shoe [SEP]", "[CLS] shoe [SEP] [SEP]"]
    assert industries == ["[CLS] [SEP] a b [SEP]", "[CLS] [SEP] [SEP]"]
    (brands, prices) = passes(tower(fields={"brand": 8, "price": 8}), [0], [2])
    assert (brands, prices) == (["[CLS] nike [SEP] [SEP]"], ["[CLS] [SEP] 1 [SEP]"])


def test_fields_have_their_own_lengths() -> None:
    model = tower(fields={"title": 8, "category": 5})
    reader = model.reader
    kept = reader.read(ITEMS)
    batch = reader.batch(kept, np.array([1]), np.array([1]), None)
    assert [tokens.input_ids.shape[1] for tokens in batch.passes] == [8, 5]
    assert reader.lengths(kept, np.array([1, 2]), np.array([1, 2])).tolist() == [13, 6]
    with pytest.raises(UserError, match=r"model\.fields\.category: max_length 65 is more than the encoder's 64"):
        tower(fields={"title": 64, "category": 65})
    with pytest.raises(UserError, match=r"model\.fields\.title: max_length 4 leaves no room for words"):
        tower(fields={"title": 4})


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_what_the_passes_say_is_summed(pooling: str) -> None:
    model = tower(pooling=pooling)
    network = model.network.double()
    assert isinstance(network, FieldTower)
    reader = model.reader
    batch = reader.batch(reader.read(ITEMS), np.array([0, 1]), np.array([1, 2]), None)
    bert = BertModel(BertConfig(**{name: value for name, value in BERT.items() if name != "model_type"}),
                     add_pooling_layer=False).double().eval()  # fmt: skip
    bert.load_state_dict(network.text.state_dict())
    w = {name: tensor.numpy() for name, tensor in network.head.state_dict().items()}
    total = 0
    for tokens in batch.passes:
        mask = tokens.attention_mask
        states = bert(tokens.input_ids, mask, tokens.token_type_ids).last_hidden_state.numpy()
        read = [state[0] if pooling == "cls" else state[: int(size)].mean(0)
                for state, size in zip(states, mask.sum(1), strict=True)]  # fmt: skip
        total = total + np.tanh(np.stack(read) @ w["dense.weight"].T + w["dense.bias"])
    outputs = total @ w["out.weight"].T + w["out.bias"]
    np.testing.assert_allclose(network(batch), outputs[:, 1] - outputs[:, 0], rtol=1e-9)
    assert len(batch) == 2
    one = batch.rows(slice(1, 2))
    assert one.passes[0].input_ids.shape[1] < batch.passes[0].input_ids.shape[1]
    np.testing.assert_allclose(network(one), network(batch)[1:], rtol=1e-9)


def test_attributes_are_read_whatever_the_builder_of_one_text_leaves_out() -> None:
    model = tower(fields={"attributes": 32}, texts={"builder": "title"})
    assert passes(model, [2], [2]) == [["[CLS] [SEP] size : 3 ; [SEP] [SEP] size : 3 ; [SEP]"]]


def test_codes_are_told_before_titles_wherever_they_stand() -> None:
    model = tower(fields={"title": 24, "attributes": 40}, texts={"compare_codes": True})
    reader = model.reader
    items = [Item("a", title="red a1b2c3"), Item("b", title="red", attributes={"size": ("a1b2c3",)})]
    words = tiny_tokenizer().convert_ids_to_tokens
    batch = reader.batch(reader.read(items), np.array([0]), np.array([1]), None)
    titles, attributes = (words(tokens.input_ids[0].tolist()) for tokens in batch.passes)
    assert titles[:3] == ["[CLS]", "[UNK]", "[UNK]"]  # "same model", which this vocabulary does not know
    assert attributes[:2] == ["[CLS]", "[SEP]"]


def test_an_item_is_read_where_one_of_its_fields_is() -> None:
    reader = tower().reader
    assert [reader.has_text(item) for item in (*ITEMS, Item("d", brand="nike"), Item("e"))] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.fixture
def with_pooler(tmp_path: Path) -> str:
    torch.manual_seed(4)
    BertModel(BertConfig(**{name: value for name, value in BERT.items() if name != "model_type"})).save_pretrained(
        tmp_path
    )
    tiny_tokenizer().save_pretrained(tmp_path)
    return f"local-dir:{tmp_path}"


def test_an_encoders_own_pooler_is_the_heads_first_layer(with_pooler: str) -> None:
    options = TextFieldsOneTowerOptions(text=with_pooler, fields=FIELDS)
    beginning = begin_training(options, TextOptions(), ITEMS, seed=1)
    pooler = BertModel.from_pretrained(with_pooler.removeprefix("local-dir:")).pooler.dense
    network: Any = beginning.model.network
    torch.testing.assert_close(network.head.dense.weight, pooler.weight)
    torch.testing.assert_close(network.head.dense.bias, pooler.bias)
    mean = begin_training(options.model_copy(update={"pooling": "mean"}), TextOptions(), ITEMS, seed=1)
    assert set(mean.start.weights) == {"text"}


def test_what_fields_say_better_is_refused() -> None:
    model = {"family": "text_fields_one_tower"}
    sections = {"data": {"pairs": "pairs.csv"}, "model": model, "text": {"max_length": 64}}
    with pytest.raises(UserError, match=r"text\.max_length means nothing .*; give each of model\.fields its length"):
        MatcherConfig.model_validate(sections)
