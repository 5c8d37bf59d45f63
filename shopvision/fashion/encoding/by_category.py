"""Encoders of categories: one for each beside the common one, measured against it on the same pairs, and composed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shopvision.errors import UserError
from shopvision.evaluation.report import Part
from shopvision.fashion.composition.card import compose
from shopvision.fashion.composition.categories import require_classes
from shopvision.fashion.detection.card import load_network
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.encoding.fitting import (
    FINAL_RESAMPLES,
    Fitted,
    Materials,
    fit_encoder,
    save_fitted,
    trained_on,
    training_data,
)
from shopvision.fashion.encoding.measure import Measures, measure_difference, measure_search
from shopvision.fashion.encoding.pairs import PairData, require_categories
from shopvision.fashion.encoding.searching import Search
from shopvision.models.card import as_folder_name, own_folder_name
from shopvision.models.version_folder import read_card
from shopvision.training.run import TrainingRun

CATEGORIES_FOLDER = "categories"
COMPOSED_FOLDER = "composed"
LEAST_SHARE = 2  # pairs of a process in a step, so that there is one to tell apart from another
SHOWN = ("recall_1", "map")


@dataclass(frozen=True)
class CategoryResult:
    """The encoder of a category, beside the common one on the same pairs; both search among the category alone.

    Attributes:
        name: of the category.
        folder: of its encoder's version.
        own: what it finds.
        common: what the common encoder finds.
        difference: by how much it finds more, query by query.
    """

    name: str
    folder: Path
    own: Measures
    common: Measures
    difference: Measures

    def parts(self) -> list[Part]:
        """For a report."""
        return [
            Part("category", f"{self.name}, own encoder", self.own, shown=SHOWN),
            Part("category", f"{self.name}, common encoder", self.common, shown=SHOWN),
            Part("category", f"{self.name}, own minus common", self.difference, shown=SHOWN),
        ]


def choose_categories(
    config: EncoderConfig, train: PairData, valid: PairData, world: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The categories that get an encoder of their own, and for each that is left to the common one a sentence why.

    Raises:
        UserError: a name that the configuration gives is no category, or none of all is large enough.
    """
    asked = config.data.per_category
    if asked is False:
        return (), ()
    learnt = train.with_pairs(trained_on(config, train))
    products = learnt.products_by_category()
    if isinstance(asked, list):
        require_categories(learnt, asked)
    names, notes = [], []
    for name in products if asked is True else asked:
        count, least = products[name], config.data.least_products
        pairs = len(learnt.of_category(name).pairs)
        if not name:
            notes.append("Pairs without a category are left to the common encoder.")
        elif count < least:
            notes.append(f"{name} is left to the common encoder: {count} products of training, fewer than {least}.")
        elif pairs < LEAST_SHARE * world:
            notes.append(f"{name} is left to the common encoder: {pairs} pairs of training are too few to share.")
        elif not valid.of_category(name).measured:
            notes.append(f"{name} is left to the common encoder: no pair of validation is of this category.")
        else:
            names.append(name)
    if not names:
        shared = f", two pairs for each of {world} processes" if world > 1 else ""
        raise UserError(
            f"No category has {config.data.least_products} products of training{shared} and a pair of validation: "
            "lower data.least_products, or set data.per_category = false."
        )
    return tuple(names), tuple(notes)


def fit_categories(
    config: EncoderConfig,
    materials: Materials,
    splits: Mapping[str, PairData],
    common: Fitted,
    run: TrainingRun,
    *,
    names: Sequence[str],
) -> tuple[CategoryResult, ...]:
    """Train the encoders of categories, each in its own folder of the run; every process takes part.

    Both are measured on the test pairs, where some were kept, else on those of validation.
    """
    results = []
    measured = splits.get("test", splits["valid"])
    for name in names:
        train, valid = splits["train"].of_category(name), splits["valid"].of_category(name)
        part = replace(run, output=run.output / CATEGORIES_FOLDER / own_folder_name(name))
        own = fit_encoder(_fitting(config, train, run), materials, train, valid, part, more=splits["train"])
        if run.process.is_main:
            save_fitted(
                own, materials.start, part.model_folder,
                name=as_folder_name(f"{config.model.name}-{own_folder_name(name)}"),
                training_data=training_data(config, train),
            )  # fmt: skip
        pairs = measured.of_category(name)
        if not pairs.measured:
            pairs = valid
        search = Search.of(pairs, materials.contents)
        mine, its = own.learner.found(search), common.learner.found(search)
        results.append(
            CategoryResult(
                name,
                part.model_folder,
                own=measure_search(search, mine, resamples=FINAL_RESAMPLES),
                common=measure_search(search, its, resamples=FINAL_RESAMPLES),
                difference=measure_difference(search, mine, its, resamples=FINAL_RESAMPLES),
            )
        )
    return tuple(results)


def require_detector(detector: Path, names: Sequence[str], classes: Mapping[str, str]) -> None:
    """Refuse a detector that encoders of these categories cannot be composed with, before they are taught.

    Raises:
        UserError: it knows no class of a category's name.
    """
    known = load_network(detector)[0].labels
    spec = read_card(detector).spec
    require_classes({f"the encoder for {name}": name for name in names}, known, spec)
    require_classes({f"the category {path}": name for path, name in classes.items()}, known, spec)


def compose_categories(
    config: EncoderConfig, run: TrainingRun, detector: Path, categories: Sequence[CategoryResult]
) -> Path:
    """Write one version that routes each garment by its class to the encoder of that category."""
    folder = run.output / COMPOSED_FOLDER
    compose(
        folder,
        detector=detector,
        encoder=run.model_folder,
        by_class={result.name: result.folder for result in categories},
        classes=config.data.classes,
        name=_composed_name(config),
    )
    return folder


def compose_command(config: EncoderConfig, run: TrainingRun, categories: Sequence[CategoryResult]) -> str:
    """What makes one version of them once there is a detector."""
    encoders = " ".join(f"--encoder-for {shlex.quote(f'{result.name}={result.folder}')}" for result in categories)
    return (
        f"With a detector, one version is made of them by: shopvision models compose --name {_composed_name(config)} "
        f"--encoder {run.model_folder} {encoders}"
    )


def _composed_name(config: EncoderConfig) -> str:
    return as_folder_name(f"{config.model.name}-by-category")


def _fitting(config: EncoderConfig, train: PairData, run: TrainingRun) -> EncoderConfig:
    """Smaller steps, where a category has not pairs enough for one."""
    pairs = len(train.pairs if config.train.single_pictures else train.measured)
    world = run.process.world
    size = max(LEAST_SHARE * world, min(config.train.batch_size, pairs // world * world))
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})
