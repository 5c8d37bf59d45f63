"""Texts with pictures: fusion at the beginning and the end, features as they are, sizes, and mirrored pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.items.item import Item
from shopvision.matching.families.illustrated import Illustrated
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.families.registry import find_family
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.fitting.inputs import FeaturePictures, PixelPictures
from shopvision.matching.fitting.preparation import PicturePreparation
from shopvision.matching.scoring.predict import PairScorer
from shopvision.settings import get_settings
from shopvision.training.pixels import PixelReader
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world
from tests.unit.matching.test_pair_models import packed, plain_bert, states
from tests.unit.matching.tiny_matcher import (
    COSINE,
    ONE,
    PREPROCESSING,
    arguments,
    save_model,
    tiny_model,
    tiny_network,
)

ITEMS = [Item("a", title="red apple watch", brand="apple"), Item("b", title="nike shoe"), Item("c", title="watch")]
INNER = COSINE.model_copy(update={"similarity": "inner_product"})


def singles(model: Any, pictures: Tensor) -> Illustrated:
    reader = model.reader
    batch = reader.batch(reader.read(ITEMS), np.arange(3), pictures)
    assert isinstance(batch, Illustrated)
    return batch


def features(count: int = 3) -> Tensor:
    torch.manual_seed(6)
    found = functional.normalize(torch.randn(count, 96, dtype=torch.float64), dim=1)
    found[1] = 0  # no picture
    return found


def weight_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.numpy(), layer.bias.numpy()


@torch.no_grad()
def test_a_picture_is_a_token_of_its_item() -> None:
    model = tiny_model(arguments("text_image_two_tower", INNER))
    network: Any = model.network.double()
    batch = singles(model, features())
    assert batch.slots is not None
    words = model.reader.packer.tokenizer.convert_ids_to_tokens(batch.tokens.input_ids[0].tolist())
    assert words[:6] == ["[CLS]", "[unused99]", "[SEP]", "red", "apple", "watch"]
    bert = plain_bert(network)
    embeddings = bert.embeddings.word_embeddings(batch.tokens.input_ids).numpy()
    weight, bias = weight_and_bias(network.image_projection)
    embeddings[:, 1] = features().numpy() * np.sqrt(96) @ weight.T + bias
    last = states(bert, batch.tokens, inputs_embeds=torch.from_numpy(embeddings))[-1].numpy()
    sizes = batch.tokens.attention_mask.sum(1).tolist()
    expected = np.stack([row[:size].mean(0) for row, size in zip(last, sizes, strict=True)])
    np.testing.assert_allclose(network.encode(batch), expected, rtol=1e-9)
    part = batch.rows(slice(2, 3))
    assert part.tokens.input_ids.shape[1] == sizes[2]
    np.testing.assert_allclose(network.encode(part), expected[2:], rtol=1e-9)


@torch.no_grad()
def test_a_picture_stands_beside_what_a_text_says() -> None:
    model = tiny_model(arguments("text_image_two_tower", INNER, fusion="end"))
    network: Any = model.network.double()
    batch = singles(model, features())
    assert batch.slots is None
    last = states(plain_bert(network), batch.tokens)[-1].numpy()
    sizes = batch.tokens.attention_mask.sum(1).tolist()
    said = np.stack([row[:size].mean(0) for row, size in zip(last, sizes, strict=True)])
    weight, bias = weight_and_bias(network.image_projection)
    expected = np.hstack([said, np.tanh(features().numpy() * np.sqrt(96) @ weight.T + bias)])
    assert network.dimension == 32
    np.testing.assert_allclose(network.encode(batch), expected, rtol=1e-9)
    # Features that are as long as they are stay as they are.
    raw = tiny_model(arguments("text_image_two_tower", INNER, fusion="end", unit_features=False)).network.double()
    raw.load_state_dict(network.state_dict())
    np.testing.assert_allclose(raw.encode(replace(batch, pictures=features()[:, None] * 96**0.5)), expected, rtol=1e-9)


@torch.no_grad()
def test_a_one_tower_may_see_pictures_at_the_end_alone() -> None:
    model = tiny_model(arguments("text_image_one_tower", ONE, picture_tokens=False, compare_pictures=True))
    network: Any = model.network.double()
    assert network.image_projection is None
    tokens = packed().tokens
    pictures = torch.stack([features(), features().roll(1, 0)], 1)
    found = network(Illustrated(tokens, None, pictures))
    said = states(plain_bert(network), tokens)[-1].numpy()
    sizes = tokens.attention_mask.sum(1).tolist()
    w = {name: tensor.numpy() for name, tensor in network.head.state_dict().items()}
    read = np.stack([row[:size].mean(0) for row, size in zip(said, sizes, strict=True)])
    u, v = pictures.numpy().transpose(1, 0, 2) * np.sqrt(96)
    shown = np.tanh(np.hstack([np.abs(u - v), u * v]) @ w["compare.weight"].T + w["compare.bias"])
    both = np.hstack([np.tanh(read @ w["dense.weight"].T + w["dense.bias"]), shown])
    outputs = both @ w["out.weight"].T + w["out.bias"]
    np.testing.assert_allclose(found, outputs[:, 1] - outputs[:, 0], rtol=1e-9)
    # Features that are as long as they are stand in the head as they are.
    raw = tiny_model(
        arguments("text_image_one_tower", ONE, picture_tokens=False, compare_pictures=True, unit_features=False)
    ).network.double()
    raw.load_state_dict(network.state_dict())
    np.testing.assert_allclose(raw(Illustrated(tokens, None, pictures * 96**0.5)), found, rtol=1e-9)


def test_pictures_neither_seen_nor_compared() -> None:
    with pytest.raises(UserError, match="picture_tokens and compare_pictures are both off"):
        tiny_network(arguments("text_image_one_tower", ONE, picture_tokens=False))


@pytest.mark.parametrize("fusion", ["begin", "end"])
def test_every_weight_learns(fusion: str) -> None:
    model = tiny_model(arguments("text_image_two_tower", COSINE, fusion=fusion))
    vectors = model.network.train().encode(singles(model, features().float()))
    model.network.pair_logits(vectors, vectors.roll(1, 0)).square().sum().backward()
    assert [name for name, weight in model.network.named_parameters() if weight.grad is None] == []


# -- options of pictures ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=4)


def options(world: World, family: str, **changes: Any) -> Any:
    wanted = find_family(family).options
    return wanted(family=family, **world.encoders(family), **changes)


def test_features_as_long_as_the_encoder_makes_them(world: World, tmp_path: Path) -> None:
    settings = get_settings().with_image_roots((world.images,))
    paths = sorted(world.images.iterdir())[:3]
    items = [Item(str(number), "red shoe", picture=path.as_uri()) for number, path in enumerate(paths)] + [
        Item("no", "red")
    ]
    found = {}
    for unit in (True, False):
        chosen = options(world, "text_image_two_tower", unit_features=unit)
        beginning = begin_training(chosen, TextOptions(max_length=32), items, seed=1)
        with PictureDoor(settings) as door:
            pictures = PicturePreparation(beginning, chosen, TrainingRun(output=tmp_path / str(unit)), door).pictures(
                items
            )
        assert isinstance(pictures, FeaturePictures)
        found[unit] = pictures.take(np.arange(4), None)
        save_model(tmp_path / f"model-{unit}", beginning.model)
        if not unit:  # what is scored is what was learnt from
            scorer = PairScorer(tmp_path / f"model-{unit}", precision="float32")
            assert scorer._features is not None
            with PictureDoor(settings) as door:
                reader = PixelReader(door, scorer.preprocessing)  # type: ignore[arg-type] # one member, one preparation
                again = scorer._features.encode(reader.read([item.picture for item in items[:3]], None).numpy())
            np.testing.assert_allclose(again, found[unit][:3], rtol=0.05, atol=0.02)
    lengths = found[False][:3].norm(dim=1)
    assert (lengths - 1).abs().min() > 0.05
    torch.testing.assert_close(found[True][:3], found[False][:3] / lengths[:, None], rtol=0.05, atol=0.02)
    assert not found[False][3].any()
    assert not found[True][3].any()


def test_pictures_of_another_size(world: World) -> None:
    beginning = begin_training(options(world, "image_two_tower", image_size=48), TextOptions(), [], seed=1)
    assert beginning.model.parts.preprocessing is not None
    assert beginning.model.parts.preprocessing.size == (48, 48)
    assert beginning.start.image is not None
    assert beginning.start.image.preprocessing.size == (48, 48)


def test_a_transformer_of_pictures_reads_another_size_with_its_positions_interpolated(tmp_path: Path) -> None:
    network = timm.create_model("test_vit", num_classes=3, img_size=32)
    network.pretrained_cfg["input_size"] = (3, 32, 32)
    timm.models.save_for_hf(network, tmp_path / "vit", safe_serialization=True)
    chosen = find_family("image_two_tower").options(image=f"local-dir:{tmp_path / 'vit'}", image_size=64)
    beginning = begin_training(chosen, TextOptions(), [], seed=1)
    found: Any = beginning.model.network
    assert found.image.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    batch = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    again: Any = save_and_load(tmp_path / "model", beginning.model)
    with torch.no_grad():
        torch.testing.assert_close(again.image_features(batch), found.image_features(batch))


def save_and_load(folder: Path, model: Any) -> Any:
    from shopvision.matching.families.card import load_matcher

    save_model(folder, model)
    return load_matcher(folder).model.network


def test_training_mirrors_as_many_as_the_options_say(world: World, tmp_path: Path) -> None:
    items = [Item("a", picture=min(world.images.iterdir()).as_uri())]
    chosen = options(world, "image_two_tower", frozen_image=False, flips=0.25)
    beginning = begin_training(chosen, TextOptions(), items, seed=1)
    with PictureDoor(get_settings().with_image_roots((world.images,))) as door:
        pictures = PicturePreparation(beginning, chosen, TrainingRun(output=tmp_path), door).pictures(items)
    assert isinstance(pictures, PixelPictures)
    assert pictures.flips == 0.25


def test_mirrored_pictures(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16] = 200
    Image.fromarray(pixels).save(tmp_path / "left.png")
    settings = get_settings().with_image_roots((tmp_path,))
    with PictureDoor(settings) as door:
        pictures = PixelPictures([(tmp_path / "left.png").as_uri(), ""], PixelReader(door, PREPROCESSING), flips=0.5)
        rows = np.zeros(16, np.int64)
        rows[3] = 1  # no picture
        learnt = pictures.take(rows, np.random.default_rng(1))
        whole = pictures.take(rows, None)
    drawn = np.random.default_rng(1)
    drawn.random((16, 2))
    mirrored = drawn.random(16) < 0.5
    assert 0 < mirrored.sum() < 16
    for row in range(16):
        left, right = (int(learnt[row, 16, column].max()) > 100 for column in (2, 29))
        assert (left, right) == ((False, False) if row == 3 else (not mirrored[row], mirrored[row]))
        assert int(whole[row, 16, 2].max()) == (0 if row == 3 else 200)
    for family in map(find_family, ("image_two_tower", "coca")):
        assert family.flips(family.options(frozen_image=False, flips=0.25)) == 0.25
        assert family.flips(family.options(frozen_image=False)) == 0
        with pytest.raises(UserError, match=r"model\.flips mirrors nothing where .* set frozen_image = false"):
            family.options(flips=0.25)
    assert find_family("text_image_two_tower").flips(find_family("text_image_two_tower").options()) == 0
