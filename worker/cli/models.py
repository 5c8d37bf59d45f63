"""``shopvision models``: what there is, bringing models in, and which one serves which role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shopvision.errors import UserError
from worker.cli.compose import compose_
from worker.cli.output import JsonFlag, emit, table
from worker.cli.tuning import tuning_
from worker.cli.warm import warm_

if TYPE_CHECKING:
    from shopvision.models.card import ModelCard

app = typer.Typer(no_args_is_help=True, help="Model versions and the roles they serve.")
app.command("compose")(compose_)
app.command("warm")(warm_)
app.command("tuning")(tuning_)

Spec = Annotated[str, typer.Argument(metavar="NAME:TAG")]
Force = Annotated[bool, typer.Option("--force", help="Activate it although its metrics show no skill.")]
AskedPrecision = Annotated[
    float | None,
    typer.Option(
        "--precision", help="Share of the pairs called same that are the same. [default: as asked so far, else 0.95]"
    ),
]
AskedMissed = Annotated[
    float | None,
    typer.Option(
        "--missed",
        help="Share of the pairs called different that are the same, at most. [default: as asked so far, else 0.02]",
    ),
]
AskedConfidence = Annotated[
    float | None,
    typer.Option("--confidence", help="How sure both shares are to be kept. [default: as asked so far, else 0.95]"),
]
Role = Annotated[str, typer.Argument(help="catalogue_encoder, pair_scorer, ...")]


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """Show every model version and the roles it serves."""
    from shopvision import models

    filled = models.roles()
    rows = [
        {
            "spec": ref.spec,
            "kind": ref.card.kind,
            "dimension": ref.card.dimension,
            "source": ref.card.source,
            "licence": ref.card.licence,
            "roles": [role for role, state in filled.items() if state.active == ref.spec],
        }
        for ref in models.list_versions()
    ]
    emit(
        rows,
        as_json,
        lambda: table(
            ("model", "kind", "dimension", "source", "licence", "active for"),
            [[", ".join(cell) or None if isinstance(cell, list) else cell for cell in row.values()] for row in rows],
        ),
    )


@app.command("sources")
def sources(as_json: JsonFlag = False) -> None:
    """Show where models can be imported from, and which roles they can then serve."""
    from shopvision.models.kinds import all_kinds

    rows = [
        {
            "source": str(scheme),
            "kind": kind.name,
            "about": scheme.about,
            "roles": list(kind.roles),
            "options": dict(scheme.options),
        }
        for kind in all_kinds().values()
        for scheme in kind.schemes
    ]
    emit(
        rows,
        as_json,
        lambda: table(
            ("source", "kind", "what it is", "can serve", "options"),
            [
                [", ".join(cell) or None if isinstance(cell, list | dict) else cell for cell in row.values()]
                for row in rows
            ],
        ),
    )


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="wheel:efficientnet-lite0, timm:NAME, ...; `shopvision models sources` lists them.")
    ],
    *,
    name: Annotated[str | None, typer.Option(help="By default the source's own.")] = None,
    tag: Annotated[str | None, typer.Option(help="By default made from the content.")] = None,
    activate: Annotated[str | None, typer.Option(metavar="ROLE", help="Let it serve this role at once.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What the source does not say itself.")
    ] = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring a model into object storage. The same content again changes nothing."""
    from shopvision import models

    if activate is not None:
        models.require_role(activate)
    ref = models.import_model(source, name=name, tag=tag, options=_options(option or []))
    if activate is not None:
        models.activate(activate, ref.spec, force=force)
    serves = f", active for {activate}" if activate else ""
    emit({"spec": ref.spec, "activated": activate}, as_json, lambda: f"{ref.spec}{serves}")


def _options(given: list[str]) -> dict[str, str]:
    options = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise UserError(f"--option {text}: give NAME=VALUE, such as text=wheel:e5-small.")
        options[name] = value
    return options


@app.command("activate")
def activate_(role: Role, spec: Spec, force: Force = False, as_json: JsonFlag = False) -> None:
    """Let a model version serve a role from now on."""
    from shopvision import models

    models.activate(role, spec, force=force)
    _emit_role(role, as_json)


@app.command("rollback")
def rollback_(role: Role, as_json: JsonFlag = False) -> None:
    """Go back to the version that served the role before."""
    from shopvision import models

    models.rollback(role)
    _emit_role(role, as_json)


def _emit_role(role: str, as_json: bool) -> None:
    from shopvision import models

    state = models.roles()[role]
    before = f" (before: {state.previous})" if state.previous else ""
    emit(
        {"role": role, "active": state.active, "previous": state.previous},
        as_json,
        lambda: f"{role}: {state.active}{before}",
    )


@app.command("show")
def show(spec: Spec, as_json: JsonFlag = False) -> None:
    """Show the card of a model version."""
    from shopvision import models

    card = models.find(spec).card
    fields = card.model_dump(mode="json")
    plain = {name: value for name, value in fields.items() if name not in {"thresholds", "promises"}}
    emit(fields, as_json, lambda: table(("field", "value"), [*_flat(plain), *threshold_rows(card)]))


@app.command("thresholds")
def thresholds(
    spec: Spec,
    *,
    precision: AskedPrecision = None,
    missed: AskedMissed = None,
    confidence: AskedConfidence = None,
    tag: Annotated[str | None, typer.Option(help="Of the new version; by default made from the content.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Let the new version score pairs.")] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Choose a pair model's thresholds anew for another promise, as a new version; nothing is trained.

    What is not given stays as the version was asked.
    """
    import tempfile
    from pathlib import Path

    from shopvision import models
    from shopvision.evaluation.promises import Promise
    from shopvision.matching.fitting.evidence_file import choose_again

    ref = models.find(spec)
    before = Promise() if ref.card.promises is None else ref.card.promises.asked
    promise = before.asking(precision=precision, missed=missed, confidence=confidence)
    folder = models.local_copy(ref)
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary, "model")
        card = choose_again(folder, output, promise, tag=tag)
        models.import_model(f"local-dir:{output}")
    if activate:
        models.activate("pair_scorer", card.spec, force=force)
    serves = ", active for pair_scorer" if activate else ""
    data = {
        "spec": card.spec,
        "activated": activate,
        "thresholds": card.thresholds,
        "promises": card.model_dump(mode="json")["promises"],
    }
    emit(data, as_json, lambda: table(("", "value"), threshold_rows(card), title=f"{card.spec}{serves}"))


def threshold_rows(card: ModelCard) -> list[tuple[str, str]]:
    """What a table tells of a card's thresholds: the values, and what they were shown to keep."""
    rows = [(f"threshold: {name}", f"{value:.4f}") for name, value in card.thresholds.items()]
    return [*rows, *(() if card.promises is None else card.promises.rows())]


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if isinstance(inner, dict):
            rows += _flat(inner, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", inner))
    return rows
