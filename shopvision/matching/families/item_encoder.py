"""A pair model from a pretrained sentence encoder alone: cosines of texts, for blocking and as a cheap first stage."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from shopvision.encoders.text_sources import fetch_text
from shopvision.encoders.token_limit import token_limit
from shopvision.matching.families._parts import Parts
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.card import save_matcher
from shopvision.matching.families.pair_model import build_model
from shopvision.matching.families.text_reading import TextReading
from shopvision.matching.families.text_two_tower import TextTwoTower, TextTwoTowerArguments
from shopvision.models.card import ModelCard
from shopvision.models.weights import load_strictly

# What the encoder wants before a text, scale and shift. Fitted to 800 labelled pairs, most of them hard, and 1,200
# random ones, of offers for electronics, shoes, computers and beer.
_COSINES = {"wheel:minilm": ("", 9.0, -8.5), "wheel:e5-small": ("query:", 50.0, -47.5)}
_OTHER_COSINES = ("", 9.0, -8.5)
_LENGTH = 128


def make_item_encoder(source: str, folder: Path) -> ModelCard:
    """A two-tower model straight from a pretrained sentence encoder, nothing trained on pairs.

    Its log-odds are ``scale * cosine + shift`` with the numbers of ``_COSINES``, and its thresholds are not calibrated:
    train on your own pairs, or choose thresholds from them, before its verdicts decide anything.

    Args:
        source: of the encoder, see ``shopvision.encoders.text_sources.fetch_text``.
        folder: gets the model version.

    Raises:
        UserError: the encoder cannot be had.
    """
    text = fetch_text(source)
    prefix, scale, shift = _COSINES.get(source, _OTHER_COSINES)
    arguments = TextTwoTowerArguments(
        family=TextTwoTower.name,
        axes=Axes(interaction="two_tower", head="metric", similarity="cosine", loss="bce"),
        text_config=text.config,
        texts=TextReading(prefix=prefix, max_length=min(_LENGTH, token_limit(text.config, text.tokenizer))),
        pooling=text.pooling,
    )
    model = build_model(arguments, Parts(tokenizer=text.tokenizer))
    weights = {f"text.{name}": tensor for name, tensor in text.tensors.items()}
    head = {"head.log_scale": torch.tensor(math.log(scale)), "head.shift": torch.tensor(shift)}
    load_strictly(model.network, weights | head, source)
    return save_matcher(
        folder,
        model,
        name=f"{text.name}-items",
        source=f"item-encoder:{text.source}",
        calibration={"method": "none"},
        thresholds={"same": 0.9, "decision": 0.5, "different": 0.1},
        licence=text.licence,
        training_data=text.training_data,
    )
