"""The registry on real Postgres with a folder and an S3 API as object store."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sqlalchemy import text

from shopvision.database import connect
from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.errors import JobError, UserError
from shopvision.items.item import Item
from shopvision.matching.fitting.ensemble_fit import fit_ensemble
from shopvision.matching.scoring.ensemble import load_scorer
from shopvision.models import registry, serving
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE
from shopvision.storage import open_store
from tests.unit.matching.pair_world import table_of
from tests.unit.matching.tiny_matcher import COSINE, ONE, arguments, save_tiny

pytestmark = pytest.mark.usefixtures("database")
ROLE = "catalogue_encoder"


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, set_environment: Callable[..., None]) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    return (tmp_path / "objects").as_uri()


@pytest.fixture
def file_store(tmp_path: Path, set_environment: Callable[..., None]) -> Path:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    return tmp_path / "objects"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[int], str]:
    """``saved(seed)``: a tiny timm model as a source."""

    def save(seed: int) -> str:
        torch.manual_seed(seed)
        timm.models.save_for_hf(
            timm.create_model("test_resnet", num_classes=2), tmp_path / f"tiny{seed}", safe_serialization=True
        )
        return f"local-dir:{tmp_path / f'tiny{seed}'}"

    return save


def test_import_and_load(store: str, saved: Callable[[int], str]) -> None:
    ref = registry.import_model(saved(1), name="tiny", tag="v1")
    assert ref.spec == "tiny:v1"
    keys = {stat.key for stat in open_store().list("models/")}
    assert keys == {f"models/tiny/v1/{CARD_FILE}", f"models/tiny/v1/{WEIGHTS_FILE}"}
    folder = registry.local_copy(ref)
    assert load_image_encoder(folder).dimension == ref.card.dimension
    assert registry.local_copy(ref) == folder
    assert registry.find("tiny:v1") == ref
    assert registry.list_versions() == [ref]


def test_an_ensemble_is_stored_with_its_members(store: str, tmp_path: Path) -> None:
    """Members lie in folders of their own within the version."""
    save_tiny(tmp_path / "a", arguments("text_one_tower", ONE))
    save_tiny(tmp_path / "b", arguments("text_two_tower", COSINE), seed=2)
    items = [Item(str(number), title) for number, title in enumerate(("red shoe", "nike shoe", "blue band", "apple"))]
    table = table_of(items, [(0, 1, 1), (0, 2, 0), (1, 2, 0), (2, 3, 0), (0, 3, 1)])
    card = fit_ensemble(tmp_path / "both", [tmp_path / "a", tmp_path / "b"], table, method="stacking").card
    ref = registry.import_model(f"local-dir:{tmp_path / 'both'}")
    assert ref.card.architecture.name == card.architecture.name
    loaded = load_scorer(registry.local_copy(ref))
    before = load_scorer(tmp_path / "both").score(items, table.left, table.right)
    np.testing.assert_array_equal(loaded.score(items, table.left, table.right), before)


@pytest.mark.usefixtures("file_store")
def test_a_version_never_changes(saved: Callable[[int], str]) -> None:
    ref = registry.import_model(saved(1), name="tiny", tag="v1")
    assert registry.import_model(saved(1), name="tiny", tag="v1") == ref
    with pytest.raises(UserError, match="tiny:v1 exists with other content"):
        registry.import_model(saved(2), name="tiny", tag="v1")
    by_content = registry.import_model(saved(2), name="tiny")
    assert len(by_content.tag) == 12
    assert registry.import_model(saved(2), name="tiny") == by_content
    assert [one.spec for one in registry.list_versions()] == ["tiny:v1", by_content.spec]


def test_two_imports_of_one_name_at_once(
    store: str, saved: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them wins, and the version holds its files; the other one is told."""
    sources = [saved(1), saved(2)]
    fetched, fetch = threading.Barrier(2), registry.fetch

    def meet(*arguments: object) -> object:
        card = fetch(*arguments)  # type: ignore[arg-type] # handed on
        fetched.wait(60)
        return card

    monkeypatch.setattr(registry, "fetch", meet)

    def bring_in(source: str) -> str:
        try:
            return registry.import_model(source, name="tiny", tag="v1").card.source
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(bring_in, sources))
    assert [line.startswith("tiny:v1 exists with other content") for line in told] == [False, True]
    ref = registry.find("tiny:v1")
    assert ref.card.source == told[0]
    assert (registry.local_copy(ref) / WEIGHTS_FILE).is_file()  # every checksum fits


def test_files_without_a_row_count_too(file_store: Path, saved: Callable[[int], str]) -> None:
    """Another database may share the object store: its versions must not be overwritten."""
    registry.import_model(saved(1), name="tiny", tag="v1")
    with connect() as connection:
        connection.execute(text("DELETE FROM model_versions"))
    with pytest.raises(UserError, match="tiny:v1 exists with other content"):
        registry.import_model(saved(2), name="tiny", tag="v1")
    assert registry.import_model(saved(1), name="tiny", tag="v1").spec == "tiny:v1"


def test_import_again_mends_lost_files(file_store: Path, saved: Callable[[int], str]) -> None:
    ref = registry.import_model(saved(1), name="tiny", tag="v1")
    (file_store / ref.prefix / WEIGHTS_FILE).unlink()
    with pytest.raises(JobError, match=r"model\.safetensors is missing: import tiny:v1 again from local-dir:tiny1"):
        registry.local_copy(ref)
    registry.import_model(saved(1), name="tiny", tag="v1")
    assert (registry.local_copy(ref) / WEIGHTS_FILE).is_file()


def test_damaged_copies(file_store: Path, saved: Callable[[int], str]) -> None:
    ref = registry.import_model(saved(1), name="tiny", tag="v1")
    folder = registry.local_copy(ref)
    (folder / WEIGHTS_FILE).write_bytes(b"half")
    assert (registry.local_copy(ref) / WEIGHTS_FILE).stat().st_size > 4  # the cache mends itself
    (file_store / ref.prefix / WEIGHTS_FILE).write_bytes(b"half")
    assert registry.local_copy(ref) == folder  # the cached copy is right
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(JobError, match=r"model\.safetensors is damaged"):
        registry.local_copy(ref)
    assert [path.name for path in folder.parent.iterdir()] == [ref.tag]  # nothing half-written stays


@pytest.mark.usefixtures("file_store")
def test_many_at_once_get_one_right_copy(saved: Callable[[int], str]) -> None:
    ref = registry.import_model(saved(1), name="tiny", tag="v1")
    start = threading.Barrier(6)

    def copy(_: int) -> Path:
        start.wait()
        return registry.local_copy(ref)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(copy, range(6)))
    assert set(results) == {registry.local_copy(ref)}
    assert len(list(registry.local_copy(ref).parent.iterdir())) == 1


@pytest.mark.usefixtures("file_store")
def test_a_full_disk_is_named(saved: Callable[[int], str], monkeypatch: pytest.MonkeyPatch) -> None:
    ref = registry.import_model(saved(1), name="tiny", tag="v1")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(open_store()), "download", full)
    with pytest.raises(JobError, match=r"The disk of .*tiny is full: free space"):
        registry.local_copy(ref)


@pytest.mark.usefixtures("file_store")
def test_roles(saved: Callable[[int], str]) -> None:
    with pytest.raises(JobError, match="No model serves the role catalogue_encoder: `shopvision models activate"):
        serving.active(ROLE)
    one, two = (registry.import_model(saved(seed), name="tiny", tag=f"v{seed}") for seed in (1, 2))
    serving.activate(ROLE, "tiny:v1")
    with pytest.raises(UserError, match="no previous version"):
        serving.rollback(ROLE)
    serving.activate(ROLE, "tiny:v2")
    serving.activate(ROLE, "tiny:v2")  # again: the way back stays
    assert serving.roles() == {ROLE: serving.RoleState("tiny:v2", "tiny:v1")}
    assert serving.rollback(ROLE) == one == serving.active(ROLE)
    assert serving.rollback(ROLE) == two
    with pytest.raises(UserError, match="Role 'cook' is unknown: use one of catalogue_encoder"):
        serving.activate("cook", "tiny:v1")
    with pytest.raises(UserError, match="There is no model version tiny:v9"):
        serving.activate(ROLE, "tiny:v9")
    with pytest.raises(UserError, match="'tiny' is not NAME:TAG"):
        serving.activate(ROLE, "tiny")


@pytest.mark.usefixtures("file_store")
def test_a_role_takes_only_its_kind(saved: Callable[[int], str], tmp_path: Path) -> None:
    made = registry.local_copy(registry.import_model(saved(1), name="tiny", tag="v1"))
    taster = tmp_path / "taster"
    taster.mkdir()
    card = json.loads((made / CARD_FILE).read_text()) | {"kind": "taster"}
    (taster / CARD_FILE).write_text(json.dumps(card))
    (taster / WEIGHTS_FILE).write_bytes((made / WEIGHTS_FILE).read_bytes())
    with pytest.raises(UserError, match="There is no kind of model 'taster', only composed_encoder, fashion_det"):
        registry.import_model(f"local-dir:{taster}")
    for role in ("pair_scorer", "pair_blocker"):
        with pytest.raises(UserError, match=f"tiny:v1 is of the kind image_encoder, not pair_scorer, as a {role} is"):
            serving.activate(role, "tiny:v1")
    with pytest.raises(UserError, match="Role 'taster' is unknown: use one of catalogue_encoder, fashion_detector"):
        serving.activate("taster", "tiny:v1")


@pytest.mark.usefixtures("file_store")
def test_a_model_without_skill_is_activated_by_force_alone(tmp_path: Path) -> None:
    for tag, auc in (("skilled", 0.9), ("random", 0.17)):
        save_tiny(tmp_path / tag, arguments("text_one_tower", ONE), tag=tag, metrics={"roc_auc": auc})
        registry.import_model(f"local-dir:{tmp_path / tag}")
    serving.activate("pair_scorer", "tiny:skilled")
    with pytest.raises(UserError, match=r"tiny:random tells .* than chance \(ROC-AUC 0\.17, chance 0\.50\).*--force"):
        serving.activate("pair_scorer", "tiny:random")
    assert serving.active("pair_scorer").spec == "tiny:skilled"
    serving.activate("pair_scorer", "tiny:random", force=True)
    assert serving.active("pair_scorer").spec == "tiny:random"
    with pytest.raises(UserError, match="tiny:skilled has no item vectors: a two-tower model is needed"):
        serving.activate("pair_blocker", "tiny:skilled", force=True)


@pytest.mark.usefixtures("file_store")
def test_the_default_encoder_fills_an_empty_role_only(saved: Callable[[int], str]) -> None:
    ref = serving.ensure_default_encoder()
    assert (ref.name, ref.card.source, ref.card.dimension) == ("efficientnet-lite0", "wheel:efficientnet-lite0", 1280)
    assert serving.active(ROLE) == ref
    registry.import_model(saved(1), name="tiny", tag="v1")
    serving.activate(ROLE, "tiny:v1")
    assert serving.ensure_default_encoder().spec == "tiny:v1"
