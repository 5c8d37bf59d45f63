"""``shopvision train``: models from your own data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from worker.cli.memory import use_workers_malloc
from worker.cli.model_folder import model_folder
from worker.cli.models import AskedConfidence, AskedMissed, AskedPrecision, Force
from worker.cli.output import JsonFlag, emit_report
from worker.cli.training_bars import Bars

if TYPE_CHECKING:
    from shopvision.evaluation.report import EvaluationReport
    from shopvision.training.run import TrainingRun

Config = TypeVar("Config")
Report = TypeVar("Report")

app = typer.Typer(no_args_is_help=True, help="Train models on your own data.")

ROLE = "plan_ranker"
MATCHER_ROLE = "pair_scorer"
DETECTOR_ROLE = "fashion_detector"
ENCODER_ROLE = "catalogue_encoder"
CLASSIFIER_ROLE = "thumbnail_classifier"
RECALL_ROLE = "image_recall"
CLICK_ROLE = "image_ranker"

Resume = Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --output.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda. [default: the GPU where there is one]")]


@app.callback()
def train() -> None:
    """Train models on your own data."""
    use_workers_malloc()


@app.command("clik")
def clik(
    *,
    config: Annotated[Path, typer.Option("--config", help="TOML file; docs/examples/clik.toml explains every field.")],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/clik"),
    resume: Resume = False,
    device: Device = None,
    activate: Annotated[bool, typer.Option("--activate", help="Import the model and let it rank plans.")] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a ranker of promotion plans' pictures. `torchrun --nproc-per-node N` before the command uses N GPUs."""
    from shopvision.selection.clik.config import ClikConfig
    from shopvision.selection.clik.train import train_clik
    from shopvision.training.config import load_config

    settled = load_config(config, ClikConfig)
    report = _learn(settled, train_clik, output, device, resume=resume)
    if report is None:
        return
    summary = report.summary("exhibitions", report.exhibitions)
    _tell(summary, report.folder, ROLE, "ranks plans", activate=activate, force=force, as_json=as_json)


@app.command("recall")
def recall(
    *,
    config: Annotated[
        Path, typer.Option("--config", help="TOML file; docs/examples/recall.toml explains every field.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/recall"),
    resume: Resume = False,
    device: Device = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="Import the model and let it find pictures by text.")
    ] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a model that finds pictures by what a text says. `torchrun` before the command uses N GPUs."""
    from shopvision.selection.recall.config import RecallConfig
    from shopvision.selection.recall.train import train_recall
    from shopvision.training.config import load_config
    from shopvision.training.distributed import joined

    settled = load_config(config, RecallConfig)
    with joined(device) as process, Bars(shown=process.is_main) as bars:
        report = train_recall(settled, bars.run(output, process, resume=resume))
    if report is None:
        return
    does = "finds pictures by text"
    _tell(report.report(), report.folder, RECALL_ROLE, does, activate=activate, force=force, as_json=as_json)


@app.command("matcher")
def matcher(
    *,
    config: Annotated[
        Path, typer.Option("--config", help="TOML file; docs/examples/matcher.toml explains every field.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/matcher"),
    resume: Resume = False,
    precision: AskedPrecision = None,
    missed: AskedMissed = None,
    confidence: AskedConfidence = None,
    device: Device = None,
    activate: Annotated[bool, typer.Option("--activate", help="Import the model and let it score pairs.")] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a model that tells whether two items are the same product. `torchrun` before the command uses N GPUs."""
    from shopvision.matching.fitting.config import MatcherConfig
    from shopvision.matching.fitting.train import train_matcher
    from shopvision.training.config import load_config

    settled = load_config(config, MatcherConfig)
    asked = settled.thresholds.asking(precision=precision, missed=missed, confidence=confidence)
    settled = settled.model_copy(update={"thresholds": asked})
    report = _learn(settled, train_matcher, output, device, resume=resume)
    if report is None:
        return
    summary = report.summary("pairs", report.pairs, soup=list(report.soup))
    _tell(summary, report.folder, MATCHER_ROLE, "scores pairs", activate=activate, force=force, as_json=as_json)


@app.command("detector")
def detector(
    *,
    config: Annotated[
        Path, typer.Option("--config", help="TOML file; docs/examples/detector.toml explains every field.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/detector"),
    resume: Resume = False,
    device: Device = None,
    activate: Annotated[bool, typer.Option("--activate", help="Import the model and let it find garments.")] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a detector of garments from photos with boxes. `torchrun` before the command uses N GPUs."""
    from shopvision.fashion.detection.config import DetectorConfig
    from shopvision.fashion.detection.train import train_detector
    from shopvision.training.config import load_config

    settled = load_config(config, DetectorConfig)
    report = _learn(settled, train_detector, output, device, resume=resume)
    if report is None:
        return
    summary = report.summary("pictures", report.pictures, training_boxes=report.boxes, regions=report.regions)
    _tell(summary, report.folder, DETECTOR_ROLE, "finds garments", activate=activate, force=force, as_json=as_json)


@app.command("encoder")
def encoder(
    *,
    config: Annotated[
        Path, typer.Option("--config", help="TOML file; docs/examples/encoder.toml explains every field.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/encoder"),
    detector: Annotated[
        str | None, typer.Option(help="NAME:TAG or folder, to compose encoders of categories with.")
    ] = None,
    resume: Resume = False,
    device: Device = None,
    activate: Annotated[bool, typer.Option("--activate", help="Import the model and let it embed pictures.")] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train an encoder that finds the product of a picture. `torchrun` before the command uses N GPUs."""
    from shopvision.fashion.composition.registering import require_registered
    from shopvision.fashion.encoding.config import EncoderConfig
    from shopvision.fashion.encoding.train import train_encoder
    from shopvision.training.config import load_config

    settled = load_config(config, EncoderConfig)
    composed_with = None if detector is None else model_folder(detector)
    if composed_with is not None:
        require_registered(composed_with)
    training = partial(train_encoder, detector=composed_with)
    report = _learn(settled, training, output, device, resume=resume)
    if report is None:
        return
    folder = report.composed or report.folder
    _tell(report.report(), folder, ENCODER_ROLE, "embeds pictures", activate=activate, force=force, as_json=as_json)


@app.command("graph")
def graph(
    *,
    config: Annotated[Path, typer.Option("--config", help="TOML file; docs/examples/graph.toml explains every field.")],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/graph"),
    resume: Resume = False,
    device: Device = None,
    as_json: JsonFlag = False,
) -> None:
    """Learn how items, values and attributes relate, as vectors that pair models of the family pkgm read."""
    from shopvision.graph.config import GraphConfig
    from shopvision.graph.train import train_graph
    from shopvision.training.config import load_config

    report = _learn(load_config(config, GraphConfig), train_graph, output, device, resume=resume)
    if report is None:
        return
    told = report.report()
    title = f'{told.title}: model.graph = "{report.folder}"'
    emit_report(told, as_json, title=title, more={"model": str(report.folder)})


def _learn(
    config: Config,
    training: Callable[[Config, TrainingRun], Report | None],
    output: Path,
    device: str | None,
    *,
    resume: bool,
) -> Report | None:
    """What the training gave, in the main process of those that ``torchrun`` started; None in the others."""
    from shopvision.training.distributed import joined

    with joined(device) as process, Bars(shown=process.is_main) as bars:
        return training(config, bars.run(output, process, resume=resume))


def _tell(
    report: EvaluationReport, folder: Path, role: str, does: str, *, activate: bool, force: bool, as_json: bool
) -> None:
    """Let the model serve, where that was asked for, and say what came of the training; also where it may not serve."""
    from shopvision import models

    serves, activated = f"shopvision models import local-dir:{folder}", False
    try:
        if activate:
            spec = models.import_model(f"local-dir:{folder}").spec
            models.activate(role, spec, force=force)
            serves, activated = f"{does} as {spec}", True
    finally:
        more = {"model": str(folder), "activated": activated}
        emit_report(report, as_json, title=f"{report.title}: {serves}", more=more)


@app.command("ensemble")
def ensemble(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that trains the members as well; docs/examples/ensemble.toml explains every field."
        ),
    ] = None,
    members: Annotated[
        list[str] | None, typer.Option("--member", help="A trained pair model: NAME:TAG or its folder; two or more.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option("--pairs", help="Labelled pairs that no member learnt from.")] = None,
    items: Annotated[Path | None, typer.Option("--items", help="The items that the pairs name by id.")] = None,
    images: Annotated[str | None, typer.Option(help="Where the items' pictures lie; by default beside them.")] = None,
    train_pairs: Annotated[
        Path | None, typer.Option("--train", help="Pairs of training: fits unseen categories apart.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="stacking, threshold_margin or f1_vote. [default: stacking]")
    ] = None,
    precision: AskedPrecision = None,
    missed: AskedMissed = None,
    confidence: AskedConfidence = None,
    name: Annotated[str | None, typer.Option(help="Of the new model. [default: ensemble]")] = None,
    output: Annotated[
        Path, typer.Option("--output", help="Folder of the run with --config, else of the model version.")
    ] = Path("runs/ensemble"),
    resume: Resume = False,
    device: Device = None,
    activate: Annotated[bool, typer.Option("--activate", help="Import the model and let it score pairs.")] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Weigh several pair models against each other, as one model that holds them all; with --config train them too."""
    from shopvision.errors import UserError
    from shopvision.evaluation.promises import Promise
    from shopvision.matching.fitting.ensemble_config import EnsembleConfig
    from shopvision.matching.fitting.ensemble_train import train_ensemble
    from shopvision.training.config import load_config
    from worker.cli.train_ensemble import report_of_trained, weigh_members

    asked = {"precision": precision, "missed": missed, "confidence": confidence}
    others = {
        "--member": members, "--pairs": pairs, "--items": items, "--images": images, "--train": train_pairs,
        "--method": method, "--name": name,
    }  # fmt: skip
    if config is not None:
        if given := [option for option, value in others.items() if value]:
            raise UserError(f"{given[0]} belongs to members that are trained: with --config the file says it.")
        settled = load_config(config, EnsembleConfig)
        settled = settled.model_copy(update={"thresholds": settled.thresholds.asking(**asked)})
        trained = _learn(settled, train_ensemble, output, device, resume=resume)
        if trained is None:
            return
        report, folder = report_of_trained(trained), trained.folder
    elif not members or pairs is None:
        raise UserError("Name --config with the members to train, or trained ones with --member and --pairs.")
    elif resume:
        raise UserError("--resume continues the training of members, which --config asks for.")
    else:
        folder = output
        report = weigh_members(
            [model_folder(member) for member in members],
            output,
            pairs=pairs,
            items=items,
            images=images,
            train_pairs=train_pairs,
            device=device,
            method=method or "stacking",
            name=name or "ensemble",
            promise=Promise().asking(**asked),
        )
    _tell(report, folder, MATCHER_ROLE, "scores pairs", activate=activate, force=force, as_json=as_json)


@app.command("classifier")
def classifier(
    *,
    config: Annotated[
        Path, typer.Option("--config", help="TOML file; docs/examples/classifier.toml explains every field.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/classifier"),
    resume: Resume = False,
    device: Device = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="Import the model and let it say what products' pictures show.")
    ] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a model that says what a product's picture shows. `torchrun` before the command uses N GPUs."""
    from shopvision.fashion.thumbnails.config import ClassifierConfig
    from shopvision.fashion.thumbnails.train import train_classifier
    from shopvision.training.config import load_config

    settled = load_config(config, ClassifierConfig)
    report = _learn(settled, train_classifier, output, device, resume=resume)
    if report is None:
        return
    summary = report.summary("pictures", report.pictures, training_pictures=report.classes)
    does = "says what products' pictures show"
    _tell(summary, report.folder, CLASSIFIER_ROLE, does, activate=activate, force=force, as_json=as_json)


@app.command("click-ranker")
def click_ranker(
    *,
    config: Annotated[
        Path, typer.Option("--config", help="TOML file; docs/examples/click_ranker.toml explains every field.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("runs/click-ranker"),
    resume: Resume = False,
    device: Device = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="Import the model and let it order items' pictures.")
    ] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a model that says which picture of an item people will click. `torchrun` before the command uses N GPUs."""
    from shopvision.selection.click.config import ClickConfig
    from shopvision.selection.click.train import train_click_ranker
    from shopvision.training.config import load_config

    settled = load_config(config, ClickConfig)
    learn = partial(train_click_ranker, recall_folder=model_folder(settled.model.recall))
    report = _learn(settled, learn, output, device, resume=resume)
    if report is None:
        return
    summary = report.summary("pairs", report.pairs, left_out=report.left_out, broken_records=report.failures)
    does = "orders items' pictures"
    _tell(summary, report.folder, CLICK_ROLE, does, activate=activate, force=force, as_json=as_json)
