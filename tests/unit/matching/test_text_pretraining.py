"""What families of texts are asked about items: hidden words, and which attributes belong to a title."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families._pretraining import PretrainingNetwork
from shopvision.matching.families.text_pretraining import title_and_others
from tests.unit.matching.tiny_matcher import COSINE, ONE, arguments, tiny_model

CLS, SEP = 2, 3
ITEMS = [
    Item("1", "apple watch red", brand="apple", price="1"),
    Item("2", "nike shoe", brand="nike", price="2"),
    Item("3", "apple watch red", brand="nike", price="3"),
    Item("4", "blue band"),
]


def questions(family: str, axes: Any, items: list[Item], **texts: Any) -> tuple[PretrainingNetwork, Any]:
    model = tiny_model(arguments(family, axes, **texts))
    reader = model.family.item_reader(model.arguments, model.parts)  # type: ignore[union-attr] # it has one
    kept = reader.read(items)
    asked = model.family.pretraining(model.network, model.arguments, model.parts, kept)  # type: ignore[union-attr]
    return asked.eval(), reader.batch(kept, np.arange(len(items)), None)


def test_a_sequence_falls_into_its_title_and_the_rest() -> None:
    ids = torch.tensor([[CLS, 7, 8, SEP, 9, SEP, 0], [CLS, SEP, 5, 6, 7, 8, SEP], [CLS, 7, SEP, SEP, 0, 0, 0]])
    mask = (ids > 0).long()
    mask[0, 6] = 0
    titles, others = title_and_others(TokenBatch(ids, mask, torch.zeros_like(ids)), SEP)
    assert titles.input_ids.tolist() == [[CLS, 7, 8, SEP], [CLS, SEP, 0, 0], [CLS, 7, SEP, 0]]
    assert titles.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert others.input_ids.tolist() == [[CLS, 9, SEP, 0, 0, 0], [CLS, 5, 6, 7, 8, SEP], [CLS, SEP, 0, 0, 0, 0]]


@pytest.mark.parametrize(("family", "axes"), [("text_one_tower", ONE), ("text_two_tower", COSINE)])
def test_equal_titles_are_no_wrong_answers_and_items_of_titles_alone_are_not_asked(family: str, axes: Any) -> None:
    asked, batch = questions(family, axes, ITEMS)
    found = float(asked.losses(batch)["matching"].value.detach())
    vectors = []
    network: Any = asked.network
    for part in title_and_others(batch, SEP):
        states = network.text(input_ids=part.input_ids, attention_mask=part.attention_mask).last_hidden_state
        mask = part.attention_mask[:, :, None]
        vectors.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)[:3])
    scores = (vectors[0] @ vectors[1].T / 0.07).double().detach()
    # Of the first and the third the title is the same, so neither is the other's wrong answer.
    scores[0, 2] = scores[2, 0] = -math.inf
    own = scores.diag()
    expected = ((scores.logsumexp(1) - own).mean() + (scores.logsumexp(0) - own).mean()) / 2
    assert found == pytest.approx(float(expected), abs=1e-5)


def test_words_are_hidden_and_never_what_holds_a_sequence_together() -> None:
    asked, batch = questions("text_one_tower", ONE, ITEMS)
    words: Any = asked.words
    shown: list[Any] = []
    hide = words.hide

    def watched(ids: Any, may: Any, mask: int) -> Any:
        shown.append((may, mask))
        return hide(ids, may, mask)

    words.hide = watched
    torch.manual_seed(0)
    assert float(asked.losses(batch)["words"].value.detach()) > 0
    may, mask = shown[0]
    assert mask == 4
    assert not may[torch.isin(batch.input_ids, torch.tensor([0, 1, CLS, SEP, 4]))].any()
    assert may.any(1).all()


def test_of_titles_alone_words_alone_are_asked() -> None:
    asked, batch = questions("text_one_tower", ONE, ITEMS, builder="title")
    assert asked.losses(batch).keys() == {"words"}
    assert asked.left_behind == ["words"]


def test_a_tokenizer_that_can_hide_nothing_is_refused() -> None:
    model = tiny_model(arguments("text_one_tower", ONE))
    tokenizer: Any = model.parts.tokenizer
    tokenizer.mask_token = None
    reader = model.family.item_reader(model.arguments, model.parts)  # type: ignore[union-attr] # it has one
    with pytest.raises(UserError, match="has no mask token, so that no word can be hidden"):
        model.family.pretraining(model.network, model.arguments, model.parts, reader.read(ITEMS))  # type: ignore[union-attr]
