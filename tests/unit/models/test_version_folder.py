"""Version folders are written whole or not at all, and read with every doubt removed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from shopvision.errors import JobError, UserError
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, Architecture, ModelCard, as_folder_name, own_folder_name
from shopvision.models.version_folder import (
    copy_version,
    load_weights,
    member_folder,
    naming_full_disk,
    read_arguments,
    read_card,
    weights_file,
    write_version,
    wrong_file,
)
from shopvision.models.weights import read_tensors


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int


def written(folder: Path, *, width: object = 2, value: float = 1.0, **changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "tiny",
        "kind": "image_encoder",
        "source": "test",
        "architecture": Architecture(name="tiny", arguments={"width": width}),
    }
    return write_version(folder, [weights_file({"weight": torch.full((2, 2), value)})], **(fields | changes))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    card = written(tmp_path / "deep" / "model")
    assert read_card(tmp_path / "deep" / "model") == card
    assert set(card.files) == {WEIGHTS_FILE}
    assert card.tag == card.content_tag()
    assert written(tmp_path / "again") == card
    assert written(tmp_path / "other", value=2.0).tag != card.tag
    assert written(tmp_path / "tagged", tag="v1").spec == "tiny:v1"
    network = torch.nn.Linear(2, 2, bias=False)
    load_weights(network, tmp_path / "again", card)
    assert torch.equal(network.weight, torch.ones(2, 2))
    assert read_arguments(tmp_path / "again", card, Arguments).width == 2


def test_the_former_version_stays_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, rename = written(tmp_path / "model"), Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EACCES, "refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="refused"):
        written(tmp_path / "model", value=2.0)
    assert read_card(tmp_path / "model") == card


def test_floating_point_is_written_as_float32_and_numbers_as_they_are(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    tensors = {
        "half": shared.to(torch.bfloat16),
        "turned": shared.view(2, 2).T,
        "shared": shared,
        "count": torch.tensor(3),
    }
    write_version(
        tmp_path / "m", [weights_file(tensors)], name="m", kind="k", source="s", architecture=Architecture(name="a")
    )
    found = read_tensors(tmp_path / "m" / WEIGHTS_FILE)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "half": torch.float32, "turned": torch.float32, "shared": torch.float32, "count": torch.int64,
    }  # fmt: skip
    assert torch.equal(found["turned"], shared.view(2, 2).T)


def test_a_version_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (tmp_path / "model").mkdir()  # empty
    first = written(folder)
    second = written(folder, value=2.0)
    assert read_card(folder) == second != first

    def fail(place: Path) -> None:
        (place / "half").touch()
        raise OSError(errno.EIO, "broken disk")

    with pytest.raises(OSError, match="broken disk"):
        write_version(folder, [fail], name="x", kind="k", source="s", architecture=Architecture(name="a"))
    assert read_card(folder) == second
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_no_model_version_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt is no part of a model version: choose another folder"):
        written(tmp_path)
    with pytest.raises(UserError, match=r"notes\.txt is a file: name a folder"):
        written(tmp_path / "notes.txt")
    written(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"model/notes\.txt is no part of a model version"):
        written(tmp_path / "model", value=2.0)
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="/ is the root of a file system"):
        written(Path("/"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line(tmp_path: Path, error: Exception) -> None:
    def fill(_: Path) -> None:
        raise error

    with pytest.raises(JobError, match=rf"The disk of {tmp_path} is full: free space"):
        write_version(tmp_path / "m", [fill], name="m", kind="k", source="s", architecture=Architecture(name="a"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(SafetensorError, match="something else"), naming_full_disk(tmp_path):
        raise SafetensorError("something else")


def test_wrong_folders_and_cards_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no card\.json: name the folder of a model version"):
        read_card(tmp_path)
    folder = tmp_path / "m"
    card = written(folder, tag="v1")
    with pytest.raises(UserError, match=r"tiny:v1 is of the kind image_encoder \(tiny\), not plan_ranker"):
        read_card(folder, "plan_ranker")
    for wrong, message in (("wide", r"width: Input should be a valid integer"), (None, r"width: Input should be a")):
        changed = card.model_copy(update={"architecture": Architecture(name="tiny", arguments={"width": wrong})})
        with pytest.raises(UserError, match=rf"card\.json: architecture\.arguments\.{message}"):
            read_arguments(folder, changed, Arguments)


def test_files_are_held_to_the_card(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    card = written(folder)
    assert wrong_file(folder, card) is None
    assert copy_version(folder, tmp_path / "copy") == card == read_card(tmp_path / "copy")
    (folder / WEIGHTS_FILE).write_bytes(b"x" + (folder / WEIGHTS_FILE).read_bytes()[1:])
    assert wrong_file(folder, card) == WEIGHTS_FILE
    with pytest.raises(UserError, match=r"model\.safetensors is not the file of the card \(sha256 differs\)"):
        copy_version(folder, tmp_path / "second")
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        copy_version(folder, tmp_path / "third")
    written(folder)
    (folder / "more").touch()
    with pytest.raises(UserError, match="more is not listed in the card"):
        copy_version(folder, tmp_path / "fourth")
    (folder / CARD_FILE).unlink()
    assert wrong_file(folder, card) == CARD_FILE


def test_a_version_may_hold_others(tmp_path: Path) -> None:
    member = written(tmp_path / "member")
    both = write_version(
        tmp_path / "both",
        [member_folder(tmp_path / "member", f"members/{number}") for number in range(2)],
        name="both", kind="pair_scorer", source="s", architecture=Architecture(name="ensemble"),
    )  # fmt: skip
    assert set(both.files) == {f"members/{number}/{file}" for number in range(2) for file in (CARD_FILE, WEIGHTS_FILE)}
    assert read_card(tmp_path / "both" / "members" / "1") == member


def test_a_folder_or_name_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/m cannot be made \(.*\): name another folder"):
        written(tmp_path / "file" / "m")
    with pytest.raises(UserError, match="tag 'a b': use letters, digits"):
        write_version(tmp_path / "m", [], name="m", tag="a b")


def test_renaming_makes_tags_of_content_anew(tmp_path: Path) -> None:
    card = written(tmp_path / "m")
    renamed = card.renamed("other", None)
    assert renamed.name == "other"
    assert renamed.tag == renamed.content_tag() != card.tag
    assert card.renamed(None, "v1").renamed("other", None).spec == "other:v1"
    for wrong in ({"name": "a/b", "tag": None}, {"name": None, "tag": "../v"}, {"name": "", "tag": None}):
        with pytest.raises(UserError, match="use letters, digits"):
            card.renamed(**wrong)


@pytest.mark.parametrize(
    ("text", "name"), [("My model (2)", "My-model-2"), ("..", "model"), ("v" * 200, "v" * 128), ("모델 x", "x")]
)
def test_any_text_becomes_a_folder_name(text: str, name: str) -> None:
    assert as_folder_name(text) == name
    assert own_folder_name(text).startswith(f"{name[:100]}-")
    assert own_folder_name(text) != own_folder_name(f"{text}?")
    assert own_folder_name(name) == name
    written_name = ModelCard(
        name=name, tag="t", kind="k", architecture=Architecture(name="a"), source="s", files={}
    ).name
    assert written_name == name
