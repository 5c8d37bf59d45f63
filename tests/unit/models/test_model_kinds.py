"""Kinds of model: found without anything heavy, extended by anybody, and the source of all roles and import schemes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision.errors import UserError
from shopvision.models.card import CARD_FILE, Architecture, ModelCard
from shopvision.models.importers import fetch
from shopvision.models.kinds import all_kinds, all_roles, all_schemes, find_kind
from shopvision.models.version_folder import write_version

OWN_KIND = """
from pathlib import Path
from shopvision.errors import JobError
from shopvision.models.card import Architecture
from shopvision.models.kinds import ImportScheme, ModelKind
from shopvision.models.version_folder import read_card, write_version

def taste(what, folder, *, salt="none"):
    return write_version(
        folder, [lambda place: (place / "taste.txt").write_text(what)], name=f"taste-of-{what}", kind="taster",
        source=f"taste:{what}", architecture=Architecture(name="tongue", arguments={"salt": salt}),
    )

class Taster(ModelKind):
    name = "taster"
    roles = ("taster", "catalogue_encoder")
    schemes = (ImportScheme("taste", "WORD", "a taste", taste, {"salt": "how much"}),)

    def load(self, folder, *, device=None, precision="auto"):
        text = (folder / "taste.txt").read_text()
        if text == "bad":
            raise JobError("It tastes bad.")
        return text

KINDS = (Taster(),)
"""


@pytest.fixture
def taster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]) -> None:
    (tmp_path / "own_model_kinds.py").write_text(OWN_KIND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_model_kinds", raising=False)
    set_environment(SHOPVISION_MODEL_KIND_MODULES="own_model_kinds")


def test_listing_kinds_loads_nothing_heavy() -> None:
    script = (
        "import sys; from shopvision.models.kinds import all_roles, all_schemes; assert all_roles() and all_schemes();"
        "print([name for name in ('torch', 'timm', 'transformers', 'faiss', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_role_exists_only_where_a_kind_can_serve_it() -> None:
    assert all_roles() == {
        "catalogue_encoder": ("image_encoder", "composed_encoder"),
        "fashion_detector": ("fashion_detector",),
        "thumbnail_classifier": ("thumbnail_classifier",),
        "pair_scorer": ("pair_scorer",),
        "pair_blocker": ("pair_scorer",),
        "plan_ranker": ("plan_ranker",),
        "image_ranker": ("image_ranker",),
        "image_recall": ("image_recall",),
    }
    assert list(all_schemes()) == [
        "wheel", "timm", "hf-hub", "local-dir", "encoder", "pkgm", "detector", "classifier", "item-encoder",
        "clik", "siamese", "align",
    ]  # fmt: skip
    with pytest.raises(
        UserError, match="There is no kind of model 'oracle', only composed_encoder, fashion_detector, image_e"
    ):
        find_kind("oracle")


@pytest.mark.usefixtures("taster")
def test_a_kind_from_elsewhere_brings_its_roles_sources_and_checks(tmp_path: Path) -> None:
    assert all_roles()["taster"] == ("taster",)
    assert all_roles()["catalogue_encoder"] == ("image_encoder", "composed_encoder", "taster")
    card = fetch("taste:sweet", tmp_path / "sweet", {"salt": "little"})
    assert (card.name, card.architecture.arguments) == ("taste-of-sweet", {"salt": "little"})
    assert find_kind("taster").load(tmp_path / "sweet") == "sweet"
    assert fetch(f"local-dir:{tmp_path / 'sweet'}", tmp_path / "copy") == card
    fetch("taste:bad", tmp_path / "bad")
    with pytest.raises(Exception, match="It tastes bad"):  # what an import checks by default: that it can be loaded
        fetch(f"local-dir:{tmp_path / 'bad'}", tmp_path / "no")
    with pytest.raises(UserError, match="taste:WORD has no option 'sugar': it takes the options salt"):
        fetch("taste:sweet", tmp_path / "no", {"sugar": "much"})
    with pytest.raises(UserError, match="holds a whole model version, which takes no option 'salt'"):
        fetch(f"local-dir:{tmp_path / 'sweet'}", tmp_path / "no", {"salt": "much"})
    with pytest.raises(UserError, match=r"Source 'smell:x' is unknown: use one of wheel:NAME, .*, taste:WORD"):
        fetch("smell:x", tmp_path / "no")


def test_wrong_modules_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "kindless.py").write_text("")
    for module, message in (
        ("nowhere.kinds", "SHOPVISION_MODEL_KIND_MODULES names 'nowhere.kinds', which cannot be imported: No module"),
        ("kindless", "SHOPVISION_MODEL_KIND_MODULES names 'kindless', which has no KINDS"),
        ("shopvision.encoders.kinds", "defines the kind of model 'image_encoder', which is there"),
    ):
        set_environment(SHOPVISION_MODEL_KIND_MODULES=module)
        with pytest.raises(UserError, match=message):
            all_kinds()


def test_a_version_of_an_unknown_kind_is_not_imported(tmp_path: Path) -> None:
    write_version(tmp_path / "m", [], name="m", kind="oracle", source="s", architecture=Architecture(name="a"))
    assert (tmp_path / "m" / CARD_FILE).is_file()
    with pytest.raises(UserError, match="There is no kind of model 'oracle'"):
        fetch(f"local-dir:{tmp_path / 'm'}", tmp_path / "copy")


def test_a_ranker_that_ranks_by_chance_is_doubted() -> None:
    card = ModelCard(
        name="r", tag="1", kind="plan_ranker", architecture=Architecture(name="clik"), source="s", files={}
    )
    kind = find_kind("plan_ranker")

    def doubt(**metrics: float) -> str | None:
        return kind.doubt(card.model_copy(update={"metrics": metrics}), "plan_ranker")

    assert doubt() is None
    assert doubt(mrr=0.6, mrr_random=0.3) is None
    assert doubt(mrr=0.29, mrr_random=0.3) == "ranks pictures no better than chance (MRR 0.290, chance 0.300)"
