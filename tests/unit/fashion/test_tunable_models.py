"""Detectors and what is composed of them are measured as image encoders are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shopvision.encoders.tuning import Setting, Tuning, TuningStore, this_machine
from shopvision.encoders.tuning.tuner import parts_of, tune
from shopvision.fashion.detection.predict import load_detector
from shopvision.fashion.detection.tunable import TunableDetector
from shopvision.images import decoding
from shopvision.models.card import CARD_FILE
from shopvision.models.part import digests_in, part_of
from shopvision.models.version_folder import read_card
from shopvision.settings import TuningChoice, get_settings
from tests.unit.encoders.test_tuning_store import tuning
from tests.unit.fashion.tiny_members import save_tiny_detector
from tests.unit.images.test_picture_reader import encoded


def test_a_detector_finds_the_same_however_many_photos_it_takes(tmp_path: Path) -> None:
    detector = load_detector(save_tiny_detector(tmp_path / "finder"), device="cpu")
    [part] = parts_of(detector)
    assert isinstance(part, TunableDetector)
    assert (part.unit, part.batch_sizes, detector.batch_size) == ("photos", (4, 2, 1, 8), 4)
    pictures = []
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 40, 3), np.uint8)
        with decoding(encoded(Image.fromarray(pixels))) as decoded:
            pictures.append(detector.prepare(decoded))
    expected = detector.boxes(pictures)
    for size in (1, 2, 8):
        part.use(TuningChoice(batch_size=size))
        assert detector.batch_size == size
        for found, wanted in zip(detector.boxes(pictures), expected, strict=True):
            assert found is not None
            assert wanted is not None
            np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
            np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    part.trial(Setting(batch_size=1, threads=1), 1)()
    assert tune(part, 10, measure=lambda run: 0.01).chosen == TuningChoice(batch_size=4)
    assert detector.batch_size == 4


def test_what_was_measured_of_a_member_counts_wherever_it_is_used(tmp_path: Path) -> None:
    folder = save_tiny_detector(tmp_path / "finder")
    card = read_card(folder)
    here = this_machine(torch.get_num_threads())
    found: Tuning = tuning(part_of(card, "boxes"), here, batch_size=2)
    TuningStore(get_settings().home).save(found)
    assert load_detector(folder, device="cpu").batch_size == 2
    assert hashlib.sha256((folder / CARD_FILE).read_bytes()).hexdigest() == found.digest
    whole = card.model_copy(update={"files": {f"detector/{CARD_FILE}": found.digest, "weights": "ab" * 32}})
    assert digests_in(whole) == {part_of(whole, "boxes").digest, found.digest}
