"""The family of docs/adding-a-pair-model.md, as it stands there: one module, and all else serves it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families import registry
from shopvision.matching.families.card import load_matcher
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.training.config import load_config
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import make_world

PAGE = (Path(__file__).parents[3] / "docs" / "adding-a-pair-model.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's module, imported."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    path = tmp_path / "word_vectors.py"
    path.write_text(code)
    registry.family_names()  # those of the package, so that they are not lost with the copy
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("word_vectors")
    yield
    del sys.modules["word_vectors"]


def test_a_family_of_one_module_is_trained_stored_loaded_and_scores(example: None, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    sections = world.sections(epochs=20, lr_head=0.05)
    sections["model"] = {"family": "word_vectors", "width": 16, "name": "words"}
    report = train_matcher(MatcherConfig.model_validate(sections), TrainingRun(output=tmp_path / "run"))
    assert report is not None
    assert report.metrics["f1"] > 0.8  # calling all same would have 0.5

    loaded = load_matcher(report.folder)
    assert (loaded.card.name, loaded.model.arguments.family) == ("words", "word_vectors")
    scorer = PairScorer(report.folder, device="cpu")
    items = [Item("a", "Red Watch"), Item("b", "watch red"), Item("c", "blue shoe")]
    vectors = scorer.item_vectors(items, None)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)  # a mean knows no order
    table = loaded.model.network.get_parameter("words.weight")
    numbers = torch.tensor([1 + crc32(word) % 4096 for word in (b"red", b"watch")])
    mean = table[numbers].mean(0)
    np.testing.assert_allclose(vectors[0], (mean / mean.norm()).detach().numpy(), atol=1e-6)
    same, other = scorer.score(items, np.array([0, 0]), np.array([1, 2]))
    assert same > other


def test_options_of_a_family_are_its_own(example: None, tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[data]\npairs = "p.csv"\n[model]\nfamily = "word_vectors"\ntext = "wheel:minilm"\n')
    with pytest.raises(UserError, match=r"text is unknown to the family word_vectors; there are .*, buckets, width"):
        load_config(file, MatcherConfig)
