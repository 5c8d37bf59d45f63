"""``shopvision models compose``: a detector and encoders to one catalogue encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shopvision.errors import UserError
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit, table

if TYPE_CHECKING:
    from shopvision.fashion.composition.policy import CropPolicy

ROLE = "catalogue_encoder"
SPEC = "NAME:TAG, a role, or the folder of a model version"


def compose_(
    *,
    name: Annotated[str, typer.Option(help="Of the composed encoder.")] = "garments",
    detector: Annotated[str, typer.Option(metavar="SPEC", help=f"Finds the garments: {SPEC}.")] = "fashion_detector",
    encoder: Annotated[str, typer.Option(metavar="SPEC", help=f"Embeds them: {SPEC}.")],
    encoder_for: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=SPEC", help="Embeds garments of one class; may be given several times."),
    ] = None,
    crop: Annotated[str, typer.Option(help="What of a picture is embedded: main (garment), all, or whole.")] = "main",
    margin: Annotated[float, typer.Option(help="Share of a garment's box that is added on each side.")] = 0.1,
    smallest_side: Annotated[int, typer.Option(help="Pixels; smaller garments are left out.")] = 32,
    score: Annotated[
        float | None,
        typer.Option(help="Garments count from this score on. [default: the detector's own threshold, else 0.5]"),
    ] = None,
    categories: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON or TOML: category path of the shop -> class.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="By default made from the content.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Let it embed the catalogue from now on.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make one catalogue encoder of a detector and encoders, so that garments are embedded and not whole pictures."""
    from shopvision import models
    from shopvision.fashion.composition.categories import read_categories
    from shopvision.fashion.composition.registering import compose_version
    from shopvision.models.card import require_folder_names

    require_folder_names(name=name, tag=tag)
    classes = {} if categories is None else read_categories(categories)
    finder = model_folder(detector)
    ref = compose_version(
        finder,
        model_folder(encoder),
        by_class={label: model_folder(spec) for label, spec in _by_class(encoder_for or []).items()},
        policy=_policy(finder, crop=crop, margin=margin, smallest_side=smallest_side, score=score),
        classes=classes,
        name=name,
        tag=tag,
    )
    if activate:
        models.activate(ROLE, ref.spec)
    arguments = ref.card.architecture.arguments
    emit(
        {"spec": ref.spec, "activated": ROLE if activate else None, "dimension": ref.card.dimension, **arguments},
        as_json,
        lambda: table(("", "value"), _rows(arguments), title=f"{ref.spec}{f', active for {ROLE}' if activate else ''}"),
    )


def _by_class(given: list[str]) -> dict[str, str]:
    encoders: dict[str, str] = {}
    for text in given:
        label, separator, spec = text.partition("=")
        if not (label and separator and spec):
            raise UserError(f"--encoder-for {text}: give CLASS=SPEC, such as shoes=shoe-encoder:1.")
        if label in encoders:
            raise UserError(f"--encoder-for names the class {label} twice: give one encoder for it.")
        encoders[label] = spec
    return encoders


def _policy(detector: Path, *, score: float | None, **options: Any) -> CropPolicy:
    from pydantic import ValidationError

    from shopvision.fashion.composition.policy import LEAST_SCORE, CropPolicy
    from shopvision.models.version_folder import read_card

    if score is None:
        own = read_card(detector).thresholds.get("score")
        options |= {} if own is None else {"score": min(max(own, LEAST_SCORE), 1.0)}
    else:
        options |= {"score": score}
    try:
        return CropPolicy.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UserError(f"--{option} {first['input']}: {first['msg']}.") from None


def _rows(arguments: dict[str, Any]) -> list[tuple[str, Any]]:
    policy = arguments["policy"]
    return [
        ("detector", arguments["detector"]),
        ("encoder", arguments["encoder"]),
        *((f"encoder for {label}", spec) for label, spec in arguments["by_class"].items()),
        *((name.replace("_", " "), value) for name, value in policy.items()),
        ("categories with a class", len(arguments["classes"])),
    ]
