"""The published recall model's file, made with the libraries that made it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from shopvision.errors import JobError, UserError
from shopvision.models.importers import fetch
from shopvision.models.weights import load_strictly
from shopvision.selection.recall.card import LoadedRecall, load_recall
from shopvision.selection.recall.checkpoints import import_checkpoint, renamed
from tests.unit.selection.tiny_clik import SPECIAL, WORDS

H, HIDDEN = 12, 64
PIECES = [*SPECIAL.values(), *WORDS, "山", "普", "陀"]
BERT = {
    "vocab_size": len(PIECES), "hidden_size": HIDDEN, "num_hidden_layers": 4, "num_attention_heads": 1,
    "intermediate_size": 96, "max_position_embeddings": 40,
}  # fmt: skip


class PublishedModel(nn.Module):
    """The names and layers of the published code; only the sizes of BERT and of the vectors are smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.image_model = EfficientNet.from_name("efficientnet-b3", num_classes=H)
        self.text_model = BertModel(BertConfig(**BERT))
        self.logit_scale = nn.Parameter(torch.tensor(3.5))
        self.image_hidden_layer = nn.Linear(H, H)
        self.text_hidden_layer = nn.Linear(HIDDEN, H)
        self.relations_emb = nn.Embedding(4, 10, padding_idx=3)
        self.linear_relation = nn.Linear(10, H)

    def encode_image(self, images: Tensor) -> Tensor:
        return functional.normalize(self.image_hidden_layer(self.image_model(images)), dim=1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return functional.normalize(self.text_hidden_layer(states[:, 0]), dim=1)


@pytest.fixture(scope="module")
def published() -> PublishedModel:
    torch.manual_seed(2)
    model = PublishedModel()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.momentum = None
    with torch.no_grad():
        # Statistics of real activations, or the signal would die out on its way through 26 blocks.
        model.train().image_model(torch.randn(2, 3, 224, 224))
    return model.eval()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def imported(published: PublishedModel, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedRecall:
    folder = tmp_path_factory.mktemp("align")
    path = saved(folder / "align_model.pth", published.state_dict(), epoch=3, min_loss=0.4)
    card = fetch(f"align:{path}", folder / "model", {"vocabulary": str(vocabulary)})
    assert (card.name, card.kind, card.source) == ("align", "image_recall", "align:align_model.pth")
    return load_recall(folder / "model")


def saved(path: Path, tensors: dict[str, Tensor], **others: Any) -> Path:
    positions = torch.arange(BERT["max_position_embeddings"])[None]
    torch.save({"state_dict": {"text_model.embeddings.position_ids": positions, **tensors}, **others}, path)
    return path


@pytest.mark.parametrize("size", [224, 300])
@torch.no_grad()
def test_pictures_get_the_vectors_of_the_package_itself(
    published: PublishedModel, imported: LoadedRecall, size: int
) -> None:
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))
    expected = published.encode_image(images)
    torch.testing.assert_close(imported.network.image(images), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_texts_get_the_vectors_of_the_first_token(published: PublishedModel, imported: LoadedRecall) -> None:
    tokens = imported.tokenizer.encode(["普陀山", "Summer Dress"])
    assert tokens.input_ids.tolist() == [[2, 19, 20, 18, 3], [2, 5, 7, 3, 0]]  # in lower case
    expected = published.encode_text(tokens.input_ids, tokens.attention_mask)
    torch.testing.assert_close(imported.network.text(tokens), expected, atol=1e-5, rtol=0)
    assert float(imported.network.factor()) == 3.5  # as it is: no exponent
    relations = imported.network.relations
    assert relations is not None
    assert relations.names == ("has_category", "has_picture", "has_title")
    table, layer = published.relations_emb.weight.double().numpy(), published.linear_relation
    rows = table[:3] @ layer.weight.double().numpy().T + layer.bias.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(relations(torch.arange(3)).numpy(), rows, atol=1e-5)


def test_every_tensor_has_one_new_name(published: PublishedModel) -> None:
    tensors = published.state_dict()
    names = renamed(tensors)
    assert sum(name.startswith("image_model.") for name in tensors) == 574
    assert len(names) == len(tensors) - 2  # the pooler, which nothing reads


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("image_model._blocks.4._se_reduce.bias", "image_model._blocks.4._se_reduce.biases"),
        ("image_model._blocks.25._bn2.weight", "image_model._blocks.26._bn2.weight"),
        ("text_model.encoder.layer.1.output.dense.bias", "text_model.encoder.layer.1.output.linear.bias"),
        ("linear_relation.bias", None),
    ],
)
def test_a_tensor_with_another_name_is_named(
    published: PublishedModel, imported: LoadedRecall, old: str, new: str | None
) -> None:
    tensors = dict(published.state_dict())
    moved = tensors.pop(old)
    if new is not None:
        tensors[new] = moved
    missing = next(iter(renamed({old: moved})))
    with pytest.raises(JobError, match=rf"tensor '{missing}' is missing \(1 in all\)"):
        load_strictly(imported.network, renamed(tensors), "align_model.pth")


def test_the_second_layer_and_the_graph_may_be_missing(
    published: PublishedModel, vocabulary: Path, tmp_path: Path
) -> None:
    left_out = ("image_hidden_layer.", "relations_emb.", "linear_relation.")
    tensors = {name: tensor for name, tensor in published.state_dict().items() if not name.startswith(left_out)}
    import_checkpoint(saved(tmp_path / "a.pth", tensors), tmp_path / "model", vocabulary=vocabulary)
    loaded = load_recall(tmp_path / "model")
    assert (loaded.network.relations, loaded.network.image.head.second) == (None, None)
    assert loaded.preprocessing.size == (224, 224)


def test_what_is_no_such_file_is_refused(published: PublishedModel, vocabulary: Path, tmp_path: Path) -> None:
    tensors = dict(published.state_dict())
    tensors["scale"] = tensors.pop("logit_scale")
    path = saved(tmp_path / "renamed.pth", tensors)
    with pytest.raises(JobError, match=r"renamed\.pth: tensor 'logit_scale' is missing \(1 in all\)"):
        import_checkpoint(path, tmp_path / "model", vocabulary=vocabulary)
    assert not (tmp_path / "model").exists()
    path = saved(tmp_path / "a.pth", {"logit_scale": torch.ones(())})
    with pytest.raises(UserError, match=r"is no published recall model: tensor 'text_hidden_layer\.weight' is missing"):
        import_checkpoint(path, tmp_path / "model", vocabulary=vocabulary)
    with pytest.raises(UserError, match=r"give `--option vocabulary=vocab\.txt`"):
        import_checkpoint(path, tmp_path / "model")
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="it has no tensors under 'state_dict'"):
        import_checkpoint(path, tmp_path / "model", vocabulary=vocabulary)
    saved(path, published.state_dict())
    vocabulary_of_another = tmp_path / "vocab.txt"
    vocabulary_of_another.write_text("[PAD]\n")
    with pytest.raises(UserError, match="holds 1 word pieces, the model knows 21: name its own file"):
        import_checkpoint(path, tmp_path / "model", vocabulary=vocabulary_of_another)
