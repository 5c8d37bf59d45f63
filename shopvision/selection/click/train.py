"""Training a click ranker: data, the recall model below it, the loop, and at the end a model version folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from shopvision.errors import ItemError, UserError
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.models.loaded import load
from shopvision.models.version_folder import read_card
from shopvision.selection.click.card import RankerArguments, save_ranker
from shopvision.selection.click.config import VARIANTS, ClickConfig
from shopvision.selection.click.learner import ClickLearner, RankerModule
from shopvision.selection.click.losses import choose_loss
from shopvision.selection.click.network import ClickNetwork
from shopvision.selection.click.preparation import ContextRules, Prepared, dual_tower_texts, feature_store, prepare
from shopvision.selection.click.splits import ClickSplits, read_splits
from shopvision.selection.recall.card import KIND as RECALL_KIND
from shopvision.selection.recall.card import load_recall, save_recall
from shopvision.settings import get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.loop import fit
from shopvision.training.pixels import PixelReader
from shopvision.training.pretrained import PictureSurvey, survey_features
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun

if TYPE_CHECKING:
    from shopvision.selection.click.predict import DualTower
    from shopvision.selection.recall.card import LoadedRecall

LEFT_OUT_FILE = "left_out.jsonl"


@dataclass(frozen=True, kw_only=True)
class ClickReport(TrainingReport):
    """What the training of a click ranker gave.

    Attributes:
        pairs: per split, how many were trained, validated and are left for testing.
        left_out: reason -> how many pairs said nothing.
        failures: records that could not be used; ``left_out.jsonl`` names them.
    """

    pairs: dict[str, int]
    left_out: dict[str, int]
    failures: int


def train_click_ranker(config: ClickConfig, run: TrainingRun, *, recall_folder: Path) -> ClickReport | None:
    """Train, and write the best epoch's model version to ``model`` in the folder of the run.

    Args:
        config: what to train.
        run: this run.
        recall_folder: model version of the recall model that ``config.model.recall`` names.

    Returns:
        The report in the main process, None in the others.

    Raises:
        UserError: the data, the configuration or the recall model cannot be used; nothing was trained.
        TransientError: a source of pictures is away.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    require_fresh(run.output, resume=run.resume)
    card = read_card(recall_folder, RECALL_KIND)
    if card.preprocessing is None or card.dimension is None:
        raise UserError(f"{card.spec} has no preprocessing or no dimension in its card: write the card anew.")
    splits = read_splits(config.data)
    loss = choose_loss(config.train.loss, splits.train.comparisons)
    tuned = load_recall(recall_folder) if config.model.tower == "tuned" else None
    arguments = RankerArguments(
        dimension=card.dimension,
        entities=config.model.entities,
        text=config.model.text,
        recall=card.spec if tuned is None else None,
        **VARIANTS[config.model.variant] | ({} if config.train.dropout is None else {"dropout": config.train.dropout}),
    )
    torch.manual_seed(config.train.seed)
    module = RankerModule(ClickNetwork(arguments), None if tuned is None else tuned.network.image)
    module.to(run.process.device)
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        prepared = _prepare(config, splits, recall_folder, run, door)
        learner = ClickLearner(
            module,
            config,
            loss=loss,
            train=prepared["train"],
            valid=prepared.get("valid"),
            pixels=None if tuned is None else PixelReader(door, card.preprocessing),
            preprocessing=card.preprocessing,
            process=run.process,
        )
        fingerprint = {name: one.data.fingerprint() for name, one in prepared.items()}
        identity = {**config.model_dump(mode="json"), "data content": fingerprint, "recall": card.spec}
        result = fit(learner, config.train, run, identity=identity)
    if not run.process.is_main:
        return None
    pairs = dict.fromkeys(("valid", "train", "test"), 0)
    pairs |= {name: len(data.comparisons) for name, data in splits.by_name.items()}
    pairs |= {name: len(one.data.comparisons) for name, one in prepared.items()}
    about = f"{config.data.clicks.name}, {pairs['train']} pairs, content sha256 {fingerprint['train']}"
    _write_left_out(run.output, splits.failures)
    trained = _Trained(config, module, arguments, recall_folder, tuned)
    write = partial(trained.write, about, result.metrics)
    unreadable = {uri: reason for one in prepared.values() for uri, reason in one.unreadable.items()}
    return ClickReport(
        **run.finish(result, write, unreadable),
        pairs=pairs,
        left_out=dict(splits.train.left_out),
        failures=len(splits.failures),
        notes=tuple(splits.notes()),
    )


def _prepare(
    config: ClickConfig,
    splits: ClickSplits,
    recall_folder: Path,
    run: TrainingRun,
    door: PictureDoor,
) -> dict[str, Prepared]:
    """Everything that frozen towers say of training and validation; the recall model is let go afterwards."""
    tower: DualTower = load(recall_folder, device=str(run.process.device))
    card = read_card(recall_folder)
    stores = {
        what: feature_store(run.feature_cache, card, tower.dimension, what, run.process.device.type)
        for what in ("pictures", "texts")
    }

    def look(uris: Sequence[str]) -> PictureSurvey:
        return survey_features(uris, lambda: (stores["pictures"], tower), run, door)

    found = {}
    for name, data in splits.by_name.items():
        if name != "test":
            found[name] = prepare(
                data,
                splits.table,
                ContextRules(config.model.entities, config.model.text, config.data.entity_order),
                look=look,
                encode_texts=dual_tower_texts(tower, stores["texts"], run.stage("texts")),
                dimension=tower.dimension,
            )
            if not len(found[name].data.comparisons):
                raise UserError(f"Unreadable pictures leave no pair for {name}: check the picture folder.")
    return found


def _write_left_out(output: Path, failures: Sequence[ItemError]) -> None:
    if failures:
        lines = [json.dumps({"code": one.code, "reason": one.message}, ensure_ascii=False) for one in failures]
        (output / LEFT_OUT_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Trained:
    """What a model version is made of."""

    config: ClickConfig
    module: RankerModule
    arguments: RankerArguments
    recall_folder: Path
    tuned: LoadedRecall | None

    def write(self, training_data: str, metrics: Mapping[str, float], folder: Path) -> ModelCard:
        """Write it into ``folder``."""
        model, recall = self.config.model, read_card(self.recall_folder)
        with tempfile.TemporaryDirectory(prefix="shopvision-tuned-") as temporary:
            below = self.recall_folder
            if self.tuned is not None:
                below = Path(temporary, "recall")
                self._write_tuned(self.tuned, recall, below)
            return save_ranker(
                folder,
                self.module.network,
                self.arguments,
                below,
                name=model.name,
                source=f"train click-ranker ({model.variant}, {model.tower} tower): {recall.spec}",
                licence=f"recall model {recall.licence}",
                training_data=training_data,
                metrics={name: round(value, 6) for name, value in metrics.items()},
            )

    def _write_tuned(self, tuned: LoadedRecall, recall: ModelCard, folder: Path) -> None:
        """The recall model with the image tower as training left it."""
        save_recall(
            folder,
            tuned.network,
            tuned.arguments,
            tuned.tokenizer.tokenizer,
            tuned.preprocessing,
            name=f"{recall.name[:100]}-tuned",
            source=f"image tower tuned on clicks: {recall.spec}",
            licence=recall.licence,
        )
