"""Pair models are measured by the same tuner; how much they read at once does not change what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shopvision.encoders.tuning import Setting
from shopvision.encoders.tuning.tuner import parts_of, tune
from shopvision.matching.families.axes import Axes
from shopvision.matching.scoring.predict import PairScorer
from shopvision.settings import TuningChoice
from tests.unit.matching.test_pair_scorer import some_items, some_pairs
from tests.unit.matching.tiny_matcher import COSINE, ONE, arguments, save_tiny


@pytest.mark.parametrize(("family", "axes"), [("text_one_tower", ONE), ("text_two_tower", COSINE)])
def test_a_pair_model_says_the_same_however_much_it_reads_at_once(tmp_path: Path, family: Any, axes: Axes) -> None:
    save_tiny(tmp_path, arguments(family, axes))
    scorer = PairScorer(tmp_path, precision="float32")
    [part] = parts_of(scorer)
    assert (part.unit, part.batch_sizes) == ("tokens", (2048, 1024, 4096))
    items = some_items()
    left, right = some_pairs(items)
    expected = scorer.score(items, left, right)
    for tokens in (50, 100, 4096):
        part.use(TuningChoice(batch_size=tokens))
        np.testing.assert_allclose(scorer.score(items, left, right), expected, atol=1e-5)
    part.trial(Setting(batch_size=64, threads=1), 200)()
    np.testing.assert_allclose(scorer.score(items, left, right), expected, atol=1e-5)
    found = tune(part, 10, measure=lambda run: 0.01)
    assert {rate.setting.batch_size for rate in found.rates} == {2048, 1024, 4096}
    assert found.chosen == TuningChoice(batch_size=2048)
