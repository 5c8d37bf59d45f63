"""``frozen_layers`` of every family that has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.families.registry import family_names, find_family
from shopvision.matching.families.text_reading import TextOptions
from tests.unit.matching.matcher_world import save_encoders
from tests.unit.matching.test_pkgm import save_tiny_graph

FAMILIES = [name for name in family_names() if "frozen_layers" in find_family(name).options.model_fields]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    save_encoders(folder, 8)
    save_tiny_graph(folder / "graph")
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_layers_of_a_text_encoder_stay_as_they_are(name: str, folder: Path) -> None:
    family = find_family(name)
    known = family.options.model_fields
    given = {"text": f"local-dir:{folder / 'text'}", "image": f"local-dir:{folder / 'image'}", "frozen_layers": 1}
    given |= {"graph": str(folder / "graph"), "fields": {"title": 16}, "keys": 4}
    options = family.options.model_validate({field: value for field, value in given.items() if field in known})
    texts = TextOptions(max_length=24) if name != "text_fields_one_tower" else TextOptions()
    network: Any = begin_training(options, texts, [Item("a", "red shoe")], seed=1).model.network
    family.freeze(network, options)
    learns = {weight for weight, tensor in network.text.named_parameters() if tensor.requires_grad}
    assert learns == {weight for weight, _ in network.text.named_parameters() if weight.startswith("encoder.layer.1.")}
    with pytest.raises(UserError, match=r"model\.frozen_layers = 3: the text encoder has 2 layers"):
        family.freeze(network, options.model_copy(update={"frozen_layers": 3}))
