"""Towers, bank and query against the formulas in numpy float64; the card keeps all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import JobError, UserError
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from shopvision.models.importers import fetch
from shopvision.models.weights import read_tensors
from shopvision.selection.clik.card import load_clik, make_topic_tokenizer
from shopvision.selection.topic import Topic
from shopvision.storage import sha256_of
from tests.unit.selection.tiny_clik import BERT, arguments, save_tiny, tiny_clik, tiny_tokenizer

TOPICS = [
    Topic("Summer dresses", "linen sale", "2021-05-01", kwds="women,linen"),
    Topic("Shoes", cat1="men"),
    Topic("Autumn linen sale women men dress shoes", date="2021-10-03"),
]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def units(*shape: int) -> np.ndarray:
    return unit(np.random.default_rng(sum(shape)).normal(size=shape))


def tokens() -> TokenBatch:
    return make_topic_tokenizer(arguments(), tiny_tokenizer()).encode(TOPICS)


@pytest.mark.parametrize("query", ["group", "virtual", "fusion", "topic"])
def test_compatibility(query: str) -> None:
    clik = tiny_clik(arguments(query=query)).double()
    topics, images = units(4, 8), units(4, 5, 8)
    bank, weight, bias = (tensor.detach().numpy() for tensor in (clik.memory_bank, clik.agg.weight, clik.agg.bias))
    raw = np.exp(topics @ bank.T)
    virtual = unit((raw / raw.sum(axis=1, keepdims=True)) @ bank)
    group = unit(np.concatenate([topics, virtual], axis=1) @ weight.T + bias)
    share = 0.0 if clik.topic_share is None else 1 / (1 + np.exp(-clik.topic_share.item()))
    fusion = share * topics + (1 - share) * virtual  # so a score is as much of either cosine
    chosen = {"group": group, "virtual": virtual, "fusion": fusion, "topic": topics}[query]
    expected = [[chosen[i] @ images[i, j] for j in range(5)] for i in range(4)]
    z = torch.from_numpy(topics)
    with torch.no_grad():
        np.testing.assert_allclose(clik.virtual_image(z), virtual, atol=1e-7)  # memory_bank was float32 once
        np.testing.assert_allclose(clik.group_query(z), group, atol=1e-12)
        np.testing.assert_allclose(clik.compatibility(z, torch.from_numpy(images)), expected, atol=1e-12)
    assert clik.agg.weight.requires_grad == (query == "group")
    assert (clik.topic_share is not None) == (query == "fusion")  # else checkpoints would need one


def test_mixed_precision_does_not_touch_the_query() -> None:
    clik = tiny_clik(arguments())
    topics, images = torch.from_numpy(units(4, 8)).float(), torch.from_numpy(units(4, 5, 8)).float()
    plain = clik.compatibility(topics, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clik.compatibility(topics, images), plain)


def project(features: np.ndarray, state: dict[str, np.ndarray], tower: str) -> np.ndarray:
    part = {name.removeprefix(f"{tower}.proj."): value for name, value in state.items() if name.startswith(tower)}
    hidden = np.maximum(features @ part["linear_in.weight"].T + part["linear_in.bias"], 0)
    return unit(hidden @ part["linear_out.weight"].T + part["linear_out.bias"])


@pytest.mark.parametrize("unit_features", [False, True])
@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
@torch.no_grad()
def test_towers(pooling: str, unit_features: bool) -> None:
    config = BERT | {"add_pooling_layer": pooling == "pooler"}
    clik = tiny_clik(arguments(text_config=config, pooling=pooling, unit_features=unit_features)).double()
    state = {name: tensor.numpy() for name, tensor in clik.state_dict().items()}
    batch = tokens()
    outputs = clik.txt_encoder.enc(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids
    )
    hidden, mask = outputs.last_hidden_state.numpy(), batch.attention_mask.numpy()
    pooled = {
        "pooler": lambda: np.tanh(
            hidden[:, 0] @ state["txt_encoder.enc.pooler.dense.weight"].T + state["txt_encoder.enc.pooler.dense.bias"]
        ),
        "mean": lambda: np.stack([row[seen == 1].mean(axis=0) for row, seen in zip(hidden, mask, strict=True)]),
        "cls": lambda: hidden[:, 0],
    }[pooling]()
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    seen = clik.img_encoder.enc(pictures).numpy()
    if unit_features:
        text, image = unit(pooled) * np.sqrt(16), unit(seen) * np.sqrt(64)
    else:
        text, image = pooled, seen
    np.testing.assert_allclose(clik.txt_encoder(batch), project(text, state, "txt_encoder"), atol=1e-9)
    np.testing.assert_allclose(clik.img_encoder(pictures), project(image, state, "img_encoder"), atol=1e-9)


@torch.no_grad()
def test_cached_unit_features_give_the_vectors_of_the_towers() -> None:
    clik = tiny_clik(arguments(unit_features=True))
    pictures = torch.randn(3, 3, 32, 32)
    cached = torch.nn.functional.normalize(clik.img_encoder.enc(pictures), dim=1)
    assert torch.allclose(clik.img_encoder.from_features(cached), clik.img_encoder(pictures), atol=1e-6)
    cached = torch.nn.functional.normalize(clik.txt_encoder.features(tokens()), dim=1).half()  # as stored
    assert torch.allclose(clik.txt_encoder.from_features(cached), clik.txt_encoder(tokens()), atol=2e-3)


def test_encoders_without_token_types() -> None:
    config = {"model_type": "distilbert", "vocab_size": 30, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    clik = tiny_clik(arguments(text_config=config, pooling="cls"))
    assert clik.txt_encoder(tokens()).shape == (3, 8)


def test_the_bank_is_replaced_whole_and_keeps_no_gradient() -> None:
    clik = tiny_clik(arguments()).train()
    pictures = torch.from_numpy(units(6, 8)).float().requires_grad_()
    clik.replace_bank(pictures.half())
    assert clik.memory_bank.dtype == torch.float32
    assert not clik.memory_bank.requires_grad
    assert torch.equal(clik.memory_bank, pictures.half().float())
    with pytest.raises(JobError, match="holds 6 pictures, the step brings 5"):
        clik.replace_bank(pictures[:5])
    assert "memory_bank" in clik.state_dict()


def test_a_new_bank_holds_unit_vectors() -> None:
    np.testing.assert_allclose(tiny_clik(arguments()).memory_bank.norm(dim=1), 1, atol=1e-6)


def test_topics_are_no_longer_than_the_encoder_holds() -> None:
    """Whatever its tokenizer says: 128 tokens here."""
    for model_type, room in (("bert", 24), ("roberta", 23)):
        config = BERT | {"model_type": model_type, "max_position_embeddings": 24, "pad_token_id": 0}
        make_topic_tokenizer(arguments(text_config=config, max_length=room), tiny_tokenizer())
        with pytest.raises(UserError, match=f"max_length {room + 1} is more than the encoder's {room} tokens"):
            make_topic_tokenizer(arguments(text_config=config, max_length=room + 1), tiny_tokenizer())


@torch.no_grad()
def test_a_card_keeps_the_whole_model(tmp_path: Path) -> None:
    wanted = arguments(season_language="en", max_length=20, unit_features=True, query="virtual", temperature=0.1)
    card = save_tiny(tmp_path / "model", wanted)
    assert (card.kind, card.dimension, card.architecture.library) == ("plan_ranker", 8, "shopvision")
    assert set(card.files) == {WEIGHTS_FILE, "tokenizer.json", "tokenizer_config.json"}
    loaded = load_clik(tmp_path / "model")
    assert loaded.card == card
    assert loaded.arguments == wanted
    before = tiny_clik(wanted)
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in loaded.clik.state_dict().items())
    assert not loaded.clik.training
    batch = loaded.topic_tokenizer.encode(TOPICS)
    expected = make_topic_tokenizer(wanted, tiny_tokenizer()).encode(TOPICS)
    assert torch.equal(batch.input_ids, expected.input_ids)
    assert torch.equal(batch.token_type_ids, expected.token_type_ids)
    topics = loaded.clik.txt_encoder(batch)
    assert torch.equal(loaded.clik.query_vectors(topics), before.query_vectors(before.txt_encoder(expected)))


def test_equal_models_have_equal_cards(tmp_path: Path) -> None:
    """Also where the tokenizer was used before."""
    first = save_tiny(tmp_path / "one", arguments())
    used = tiny_tokenizer()
    used(["summer dress", "sale"], padding=True, truncation=True, max_length=3)
    assert save_tiny(tmp_path / "two", arguments(), tokenizer=used) == first
    assert save_tiny(tmp_path / "three", arguments(), seed=2).tag != first.tag


def test_a_folder_with_a_clik_is_imported_strictly(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    made = tmp_path / "made"
    card = save_tiny(made, arguments())
    assert fetch(f"local-dir:{made}", tmp_path / "taken") == card

    def change(**tensors: torch.Tensor | None) -> None:
        changed = read_tensors(made / WEIGHTS_FILE) | tensors
        save_file({name: value for name, value in changed.items() if value is not None}, made / WEIGHTS_FILE)
        files = card.files | {WEIGHTS_FILE: sha256_of(made / WEIGHTS_FILE)}
        (made / CARD_FILE).write_bytes(card.model_copy(update={"files": files}).to_bytes())

    change(memory_bank=torch.zeros(5, 8))
    with pytest.raises(JobError, match=r"'memory_bank' has the shape \[5, 8\], the architecture wants \[6, 8\]"):
        fetch(f"local-dir:{made}", tmp_path / "refused")
    change(memory_bank=None)
    with pytest.raises(JobError, match="'memory_bank' is missing"):
        fetch(f"local-dir:{made}", tmp_path / "refused")


def test_wrong_cards_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no card\.json"):
        load_clik(tmp_path)
    card = save_tiny(tmp_path / "model", arguments())
    path = tmp_path / "model" / CARD_FILE

    def write(changed: ModelCard) -> None:
        path.write_bytes(changed.to_bytes())

    write(card.model_copy(update={"kind": "image_encoder"}))
    with pytest.raises(UserError, match="is of the kind image_encoder"):
        load_clik(tmp_path / "model")
    content = json.loads(card.to_bytes())
    content["architecture"]["arguments"]["query"] = "nearest"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"architecture\.arguments\.query: Input should be 'group'"):
        load_clik(tmp_path / "model")
    write(card)
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(JobError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        load_clik(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(JobError, match=r"tokenizer\.json is missing"):
        load_clik(tmp_path / "model")
