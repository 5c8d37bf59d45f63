"""Files that trainings read lie on this machine: an address is refused by its name, before it becomes a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from shopvision.errors import UserError
from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.recall.config import RecallConfig
from shopvision.training.config import load_config


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (DetectorConfig, "boxes"), (DetectorConfig, "valid"), (ClassifierConfig, "pictures"),
        (ClassifierConfig, "valid"), (EncoderConfig, "pairs"), (EncoderConfig, "items"), (EncoderConfig, "valid"),
        (MatcherConfig, "pairs"), (MatcherConfig, "valid"), (MatcherConfig, "items"), (ClikConfig, "table"),
        (RecallConfig, "items"), (RecallConfig, "pairs"),
    ],
)  # fmt: skip
def test_an_address_is_no_file_of_this_machine(kind: type[BaseModel], field: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    needed = {DetectorConfig: "boxes", ClassifierConfig: "pictures"}.get(kind)
    values = {**({needed: "here"} if needed else {}), field: "s3://shop/file.json"}
    file.write_text("[data]\n" + "".join(f'{name} = "{value}"\n' for name, value in values.items()))
    with pytest.raises(UserError, match=rf"data\.{field}: 's3://shop/file.json' is an address: copy it here, and name"):
        load_config(file, kind)
