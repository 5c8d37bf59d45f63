"""Training of a ranker against a plain loop, for the benchmark ``ranking``; and the words that it works on."""

from __future__ import annotations

import csv
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import Table, photos, progress
from benchmarks.ranking_baselines import measure

if TYPE_CHECKING:
    from shopvision.selection.clik.config import ClikConfig


@dataclass(frozen=True)
class Training:
    """Sizes of a training: exhibitions of ``group_size`` products; an epoch has as many steps as exhibitions."""

    frozen: bool
    exhibitions: int
    epochs: int
    groups: int
    group_size: int
    plain_steps: int


TRAININGS = (
    Training(frozen=True, exhibitions=48, epochs=20, groups=12, group_size=20, plain_steps=4),
    Training(frozen=False, exhibitions=12, epochs=1, groups=2, group_size=10, plain_steps=8),
)
QUICK_TRAININGS = (Training(frozen=True, exhibitions=4, epochs=1, groups=2, group_size=5, plain_steps=2),)


def measure_training(*, quick: bool) -> Table:
    """Ours and the plain loop, with frozen encoders and with ones that learn."""
    table = Table(
        "Training of a ranker",
        "Steps per second after the first tenth; both ways draw the same samples. *before*: seconds from the start of "
        "the process to the end of the first step, with frozen encoders those for encoding every picture and text "
        "once. *peak MiB*: of the process, without the plain loop's two DataLoader workers. *ratio*: by the plain "
        "loop, which has the encoders run over every picture in every step.",
    )
    for case in QUICK_TRAININGS if quick else TRAININGS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            os.environ["SHOPVISION_HOME"] = str(Path(name, "home"))  # where features are kept
            config = _table_and_config(Path(name), case)
            ours = measure("train", config, Path(name, "run"))
            plain = measure("plain_loop", config, case.plain_steps)
        pictures = case.exhibitions + case.groups * case.group_size
        for way, result in (("plain loop", plain), ("shopvision", ours)):
            table.rows.append(
                {
                    "encoders": "frozen" if case.frozen else "learning",
                    "way": way,
                    "pictures a step": pictures,
                    "steps/s": result["steps_per_second"],
                    "ratio": result["steps_per_second"] / plain["steps_per_second"],
                    "before": result["before_first_step"],
                    "peak MiB": result["peak_mib"],
                }
            )
            progress(f"training: {table.rows[-1]}")
    return table


def _table_and_config(folder: Path, case: Training) -> Path:
    """A table of real photos with drawn click rates, and the configuration that trains on it."""
    generator = np.random.default_rng(0)
    products = case.exhibitions * case.group_size
    pictures = photos()[:products]
    topics = topics_of(case.exhibitions + products, generator)
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["exhibit_id", "exhibit_name", "exhibit_cat1", "prod_id", "prod_name", "image", "ctr"])
        for number, topic in enumerate(topics[case.exhibitions :]):
            of = topics[number % case.exhibitions]
            ctr = generator.uniform(0.001, 0.1)
            writer.writerow([
                number % case.exhibitions, of["name"], of["cat1"], number, topic["name"],
                pictures[number % len(pictures)].name, ctr,
            ])  # fmt: skip
    config = clik_config(
        data={"table": folder / "table.csv", "images": str(pictures[0].parent), "label": "ctr"},
        refine={"fractions": (1, 0, 0), "min_products": case.group_size},
        model={"frozen": case.frozen},
        train={
            "matching_batch": case.exhibitions, "groups": case.groups, "group_size": case.group_size,
            "epochs": case.epochs, "select_by": "last",
        },
    )  # fmt: skip
    path = folder / "config.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    return path


def clik_config(**sections: Any) -> ClikConfig:
    """Published values but for what is given, with EfficientNet-Lite0 and MiniLM."""
    from shopvision.selection.clik.config import ClikConfig

    model = {"text": "wheel:minilm", "season_language": "en", **sections.pop("model", {})}
    return ClikConfig.model_validate({"data": {"catalogue": True}, "model": model, **sections})


def topics_of(count: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Topics from the titles and categories of the photos' products, of the length that shops write."""
    from tests.conftest import DATA

    with (DATA / "myntra_fashion" / "styles.csv").open(encoding="utf-8", newline="") as file:
        styles = list(csv.DictReader(file))
    topics = []
    for _ in range(count):
        some = [styles[index] for index in generator.choice(len(styles), 6, replace=False)]
        topics.append(
            {
                "name": some[0]["productDisplayName"],
                "desc": some[1]["productDisplayName"],
                "date": "2026-07-01",
                "cat1": some[0]["masterCategory"],
                "cat2": some[0]["articleType"],
                "kwds": [style["articleType"] for style in some[2:]],
            }
        )
    return topics
