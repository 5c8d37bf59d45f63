"""Are thumbnail classifiers right as often as a plain linear probe, and are their probabilities true?

Photos of ``clothing_small`` (10 classes, 20 each, worn or on a table) and of ``myntra_fashion`` (catalogue photos; its
article types are brought onto the seven classes of the published classifier and ``etc``). The probe is scikit-learn's
logistic regression on the same vectors of the same encoder, its strength chosen by cross-validation.
`make test-quality ARGS="-s tests/quality/test_classifier_on_garments.py"` prints the table.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from shopvision.evaluation.bootstrap import Measured
from shopvision.evaluation.class_metrics import measure_classes
from shopvision.evaluation.reliability import reliability
from shopvision.fashion.thumbnails.classifier import load_classifier
from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.fashion.thumbnails.data import LabelledPictures, read_labelled
from shopvision.fashion.thumbnails.evaluate import ClassificationReport, evaluate_classifier
from shopvision.fashion.thumbnails.train import train_classifier
from shopvision.images import PictureDoor
from shopvision.settings import get_settings
from shopvision.training.pretrained import fetch_image, survey_pictures
from shopvision.training.run import TrainingRun
from tests.quality.myntra_world import read_products

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CLASSES_OF_MYNTRA = {
    "bag": ("Handbags", "Backpacks", "Clutches", "Laptop Bag", "Duffel Bag", "Messenger Bag", "Rucksacks"),
    "bottom": (
        "Trousers", "Jeans", "Shorts", "Track Pants", "Skirts", "Capris", "Leggings", "Lounge Pants", "Lounge Shorts",
        "Tights", "Churidar",
    ),
    "dress": ("Dresses",),
    "hat": ("Caps", "Hat"),
    "outer": ("Jackets", "Waistcoat", "Shrug"),
    "shoes": (
        "Casual Shoes", "Sports Shoes", "Heels", "Sandals", "Flip Flops", "Formal Shoes", "Flats", "Sports Sandals",
    ),
    "top": ("Tshirts", "Shirts", "Tops", "Sweaters", "Sweatshirts", "Kurtas", "Kurtis", "Tunics", "Innerwear Vests"),
    "etc": ("Watches", "Sunglasses", "Wallets", "Belts", "Socks", "Ties", "Cufflinks", "Mufflers", "Scarves"),
}  # fmt: skip
CLASS_OF = {kind: name for name, kinds in CLASSES_OF_MYNTRA.items() for kind in kinds}


def parts(rows: list[dict[str, str]], folder: Path, test_share: float) -> tuple[Path, Path]:
    """The rows as a file to learn from and one to measure on; a row's file depends on its picture's name alone."""
    paths = folder / "train.csv", folder / "test.csv"
    draws = [int.from_bytes(hashlib.sha256(row["picture"].encode()).digest()[:4], "big") / 2**32 for row in rows]
    for path, is_test in zip(paths, (False, True), strict=True):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["picture", "label"])
            writer.writeheader()
            writer.writerows(row for row, draw in zip(rows, draws, strict=True) if (draw < test_share) == is_test)
    return paths


def clothing(data: Path, folder: Path) -> tuple[Path, Path]:
    with (data / "clothing_small" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [{"picture": row["file"], "label": row["label"]} for row in csv.DictReader(file)]
    return parts(rows, folder, 0.4)


def myntra(data: Path, folder: Path) -> tuple[Path, Path]:
    products = read_products(data / "myntra_fashion")
    rows = [
        {"picture": product["image"], "label": CLASS_OF[product["articleType"]]}
        for product in products
        if product["articleType"] in CLASS_OF
    ]
    return parts(rows, folder, 0.3)


def probe(train: LabelledPictures, test: LabelledPictures, images: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of logistic regression for the test pictures, and their labels."""
    from sklearn.linear_model import LogisticRegressionCV

    image = fetch_image("wheel:efficientnet-lite0")
    both = train.followed_by(test)
    with PictureDoor(get_settings().with_image_roots((images,))) as door:
        survey = survey_pictures(both.uris, image, TrainingRun(output=folder), door, encode=True)
    assert survey.features is not None
    assert survey.readable.all()
    features = survey.features.take(np.arange(len(both))).numpy()
    cut = len(train)
    regression = LogisticRegressionCV(
        Cs=np.logspace(0, 3, 4), cv=3, max_iter=300, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False
    )
    regression.fit(features[:cut], train.labels)
    return regression.predict_proba(features[cut:]), test.labels


@pytest.mark.parametrize(("name", "make"), [("clothing_small", clothing), ("myntra_fashion", myntra)])
def test_as_right_as_a_linear_probe_and_with_true_probabilities(
    name: str,
    make: Callable[[Path, Path], tuple[Path, Path]],
    data: Path,
    tmp_path: Path,
    set_environment: Callable[..., None],
) -> None:
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))
    train, test = make(data, tmp_path)
    images = data / name
    config = ClassifierConfig.model_validate({"data": {"pictures": train, "images": str(images)}})
    report = train_classifier(config, TrainingRun(output=tmp_path / "run"))
    assert report is not None
    classifier = load_classifier(report.folder, device="cpu")
    pictures = read_labelled(test, images=str(images), classes=classifier.labels)
    with PictureDoor(get_settings().with_image_roots((images,))) as door:
        ours = evaluate_classifier(classifier, pictures, door, model=report.card.spec)
    learnt = read_labelled(train, images=str(images), classes=classifier.labels)
    probabilities, labels = probe(learnt, pictures, images, tmp_path / "probe")
    plain = measure_classes(labels, probabilities)
    plain_error = reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels).ece
    table(name, report.card.metrics, ours, plain.metrics, plain_error)
    accuracy = ours.found.metrics["accuracy"]
    assert accuracy.low > ours.found.constant_accuracy.high
    assert accuracy.value > plain.metrics["accuracy"].low
    # Of a hundred pictures and more, each of the bins has few: chance alone gives half of this.
    assert ours.bins.ece < 2 * ours.bins.noise


def table(
    name: str,
    card: dict[str, float],
    ours: ClassificationReport,
    plain: Mapping[str, Measured],
    plain_error: float,
) -> None:
    error = f"{card['calibration_error_before']:.3f} -> {card['calibration_error']:.3f}"
    lines = [
        f"\n{name}: {len(ours.right)} test pictures, always one class {ours.found.constant_accuracy.value:.3f}",
        f"temperature {ours.temperature:.2f}, ECE held out {error}, of test by chance {ours.bins.noise:.3f}",
        "| | accuracy | balanced accuracy | macro F1 | loss | ECE |",
    ]
    for who, found, ece in (("ours", ours.found.metrics, ours.bins.ece), ("regression", plain, plain_error)):
        told = (f"{of.value:.3f} ({of.low:.3f} - {of.high:.3f})" for of in found.values())
        lines.append(f"| {who} | {' | '.join(told)} | {ece:.3f} |")
    for part in ours.summary().parts:
        told = (f"{metric} {of.value:.3f}" for metric, of in part.metrics.items())
        lines.append(f"{part.group} {part.name}: {', '.join(told)}")
    sys.stdout.write("\n".join(lines) + "\n")
