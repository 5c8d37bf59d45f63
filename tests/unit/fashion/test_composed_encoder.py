"""A detector and encoders as one model version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.errors import UserError
from shopvision.fashion.composition.card import compose
from shopvision.fashion.composition.policy import CropPolicy
from shopvision.fashion.composition.predict import load_composed
from shopvision.images import Decoded
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.importers import fetch
from tests.unit.fashion.tiny_members import DIMENSION, LABELS, save_tiny_detector, save_tiny_encoder


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    save_tiny_detector(folder / "finder")
    save_tiny_encoder(folder / "eye")
    save_tiny_encoder(folder / "shoe-eye", name="shoe-eye", seed=2)
    return folder


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), np.uint8)


def make(folder: Path, members: Path, **changes: Any) -> Any:
    values = {"detector": members / "finder", "encoder": members / "eye", "name": "garments"} | changes
    return compose(folder, **values)


def test_a_version_holds_its_members_and_what_is_done_with_them(members: Path, tmp_path: Path) -> None:
    policy = CropPolicy(crop="all", margin=0.2, smallest_side=20, score=0.4)
    card = make(
        tmp_path / "model", members, by_class={"shoes": members / "shoe-eye"}, policy=policy, classes={"Men": "bag"}
    )
    assert fetch(f"local-dir:{tmp_path / 'model'}", tmp_path / "copy") == card
    assert (card.kind, card.dimension) == ("composed_encoder", DIMENSION + 2)
    assert {Path(file).parent.as_posix() for file in card.files} == {"detector", "encoder", "encoders/shoes"}
    composed = load_composed(tmp_path / "copy", device="cpu")
    assert composed.policy == policy
    assert composed.classes == {"Men": "bag"}
    assert composed.detector.labels == LABELS
    assert composed.detector_spec.startswith("finder:")
    assert composed.target == (96, 96)  # 3 x 32, and the detector's own
    assert make(tmp_path / "again", members, name="garments").tag != card.tag


def test_without_encoders_by_class_vectors_are_those_of_the_encoder(
    members: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    make(tmp_path / "model", members)
    composed = load_composed(tmp_path / "model", device="cpu", precision="float32")
    eye = load_image_encoder(members / "eye", device="cpu", precision="float32")
    np.testing.assert_array_equal(composed.encode(pixels), eye.encode(pixels))
    np.testing.assert_array_equal(composed.encode(pixels, ["shoes"] * 5), eye.encode(pixels))
    assert composed.encode(pixels[:0]).shape == (0, DIMENSION)
    assert composed([pixels[0]]).shape == (1, DIMENSION)


def test_garments_go_to_the_encoder_of_their_class(members: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    make(tmp_path / "model", members, by_class={"shoes": members / "shoe-eye"})
    composed = load_composed(tmp_path / "model", device="cpu", precision="float32")
    eye = load_image_encoder(members / "eye", device="cpu", precision="float32").encode(pixels)
    shoe_eye = load_image_encoder(members / "shoe-eye", device="cpu", precision="float32").encode(pixels)
    vectors = composed.encode(pixels, ["shoes", None, "bag", "shoes", "no such class"])
    expected = np.stack([shoe_eye[0], eye[1], eye[2], shoe_eye[3], eye[4]])
    np.testing.assert_allclose(vectors[:, :DIMENSION], np.sqrt(0.3) * expected, atol=1e-6)
    assert vectors[:, DIMENSION:].argmax(axis=1).tolist() == [1, 0, 0, 1, 0]
    np.testing.assert_allclose(composed.similarity(vectors @ vectors.T)[0, 3], shoe_eye[0] @ shoe_eye[3], atol=1e-5)


def test_a_crop_is_cut_with_its_margin(members: Path, tmp_path: Path) -> None:
    """A picture of one colour per half: with the margin, the crop holds some of the other half."""
    make(tmp_path / "model", members, policy=CropPolicy(margin=0.25))
    composed = load_composed(tmp_path / "model", device="cpu")
    image = Image.new("RGB", (200, 100), (255, 0, 0))
    image.paste((0, 0, 255), (100, 0, 200, 100))
    crop = composed.prepare_crop(Decoded(image, image.size, (0.0, 0.0, 200.0, 100.0)), (20.0, 20.0, 100.0, 80.0))
    assert crop.shape == (32, 32, 3)
    assert (crop[16, 0].tolist(), crop[16, -1].tolist()) == ([255, 0, 0], [0, 0, 255])
    assert composed.crop((20.0, 20.0, 100.0, 80.0), (200, 100)) == (0, 5, 120, 95)


def test_what_does_not_fit_together_is_refused(members: Path, tmp_path: Path) -> None:
    save_tiny_encoder(tmp_path / "wide", name="wide", dimension=300)
    reading = Preprocessing(size=(32, 32), resize_mode="center")
    save_tiny_encoder(tmp_path / "centre", name="centre", preprocessing=reading)
    target = tmp_path / "model"
    with pytest.raises(UserError, match=r"eye:\w+ gives vectors of 256 dimensions and wide:\w+ of 300"):
        make(target, members, by_class={"shoes": tmp_path / "wide"})
    with pytest.raises(UserError, match=r"eye:\w+ and centre:\w+ want their pictures prepared in different ways"):
        make(target, members, by_class={"shoes": tmp_path / "centre"})
    with pytest.raises(UserError, match=r"finder:\w+ is of the kind fashion_detector .* not image_encoder"):
        make(target, members, encoder=members / "finder")
    with pytest.raises(UserError, match=r"eye:\w+ is of the kind image_encoder .* not fashion_detector"):
        make(target, members, detector=members / "eye")
    with pytest.raises(UserError, match=r"knows no class 'boot' \(the encoder for boot\): it knows bag, dress, shoes"):
        make(target, members, by_class={"boot": members / "eye"})
    with pytest.raises(UserError, match=r"knows no class 'boot' \(the category Men\)"):
        make(target, members, classes={"Men": "boot"})
    with pytest.raises(UserError, match="Whole pictures have no class to choose an encoder by"):
        make(target, members, by_class={"bag": members / "eye"}, policy=CropPolicy(crop="whole"))
    assert not target.exists()


def test_a_card_that_was_changed_is_refused(members: Path, tmp_path: Path) -> None:
    make(tmp_path / "model", members)
    path = tmp_path / "model" / "card.json"
    card = json.loads(path.read_text())

    def write(**changes: Any) -> None:
        path.write_text(json.dumps(card | changes))

    arguments = card["architecture"]["arguments"]
    write(dimension=300)
    with pytest.raises(UserError, match="says 300 dimensions, its encoders give 256: compose it anew"):
        load_composed(tmp_path / "model", device="cpu")
    write(architecture=card["architecture"] | {"arguments": arguments | {"classes": {"Men": "boot"}}})
    with pytest.raises(UserError, match="knows no class 'boot'"):
        load_composed(tmp_path / "model", device="cpu")
    write(architecture=card["architecture"] | {"arguments": arguments | {"policy": {"score": 7}}})
    with pytest.raises(UserError, match=r"arguments.policy.score: Input should be less than or equal to 1"):
        load_composed(tmp_path / "model", device="cpu")
