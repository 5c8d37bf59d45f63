"""``shopvision evaluate``: how good a trained model is on data it has not seen."""

from __future__ import annotations

import typer

from worker.cli.evaluate.cascade import cascade
from worker.cli.evaluate.classifier import classifier
from worker.cli.evaluate.click_ranker import click_ranker
from worker.cli.evaluate.detector import detector
from worker.cli.evaluate.encoder import encoder
from worker.cli.evaluate.matcher import matcher
from worker.cli.evaluate.ranker import ranker
from worker.cli.evaluate.recall import recall
from worker.cli.memory import use_workers_malloc

app = typer.Typer(no_args_is_help=True, help="Measure trained models.")


@app.callback()
def evaluate() -> None:
    """Measure trained models."""
    use_workers_malloc()


for command in (ranker, recall, matcher, cascade, detector, encoder, classifier, click_ranker):
    app.command()(command)
