"""The published click ranker's file: its network in torch as published, imported strictly; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shopvision.errors import JobError, UserError
from shopvision.models.importers import fetch
from shopvision.models.part import digests_in, part_of
from shopvision.models.version_folder import read_card
from shopvision.selection.click.context import Entity
from shopvision.selection.click.predict import ImageRanker
from tests.unit.selection.test_align_checkpoints import BERT, PIECES, H, PublishedModel

PICTURES, WIDTH = 4, 5


class Dice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(64, eps=1e-9)

    def forward(self, x: Tensor) -> Tensor:  # alpha is zeros, and no parameter
        p = torch.sigmoid(self.bn(x.transpose(1, 2)).transpose(1, 2))
        return p * x + 0.0 * (1 - p) * x


class Layers(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Sequential(*layers)


class PublishedRanker(nn.Module):
    """The names and layers of the published code; only the vectors are shorter."""

    def __init__(self) -> None:
        super().__init__()
        self.align_model = PublishedModel()
        del self.align_model.relations_emb, self.align_model.linear_relation
        self.linear1 = nn.Linear(2 * H, H)
        self.linear3 = nn.Linear(3 * H, 512)
        self.linear4 = nn.Linear(512, 256)
        self.linear2 = nn.Linear(256, 1)
        self.attention_layer = nn.Module()
        self.attention_layer.local_att = nn.Module()
        first = Layers(nn.Linear(4 * H, 64), Dice(), nn.Dropout(0.2), nn.Linear(64, 16))
        self.attention_layer.local_att.fc1, self.attention_layer.local_att.fc2 = first, Layers(nn.Linear(16, 1))

    def forward(self, v: Tensor, text: Tensor, images: Tensor, names: Tensor, length: Tensor) -> Tensor:
        k = self.linear1(torch.cat([images, names], dim=2))
        q = v.unsqueeze(1).expand_as(k)
        both = self.attention_layer.local_att
        score = both.fc2.fc(both.fc1.fc(torch.cat([q, k, q - k, q * k], dim=2)))
        score = score * (torch.arange(WIDTH)[None, :, None] < length[:, None, None])
        p = (score * k).sum(1)
        x = torch.cat([v, text, p], dim=1)
        return torch.Tensor(self.linear2(torch.relu(self.linear4(torch.relu(self.linear3(x)))))[:, 0])


@pytest.fixture(scope="module")
def published() -> PublishedRanker:
    torch.manual_seed(4)
    model = PublishedRanker().eval()
    norm = model.attention_layer.local_att.fc1.fc[1].bn
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.2, 1.5)
    return model


@pytest.fixture(scope="module")
def folder(published: PublishedRanker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ranker.ckpt`` and ``vocab.txt``."""
    folder = tmp_path_factory.mktemp("siamese")
    positions = torch.arange(BERT["max_position_embeddings"])[None]
    tensors = {**published.state_dict(), "align_model.text_model.embeddings.position_ids": positions}
    torch.save(tensors, folder / "ranker.ckpt")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return folder


@torch.no_grad()
def test_scores_are_those_of_the_published_network(published: PublishedRanker, folder: Path, tmp_path: Path) -> None:
    options = {"vocabulary": str(folder / "vocab.txt")}
    card = fetch(f"siamese:{folder / 'ranker.ckpt'}", tmp_path / "model", options)
    assert (card.kind, card.source, card.dimension) == ("image_ranker", "siamese:ranker.ckpt", H)
    ranker = ImageRanker(tmp_path / "model", device="cpu")
    assert ranker.vectors_of == card.spec
    assert ranker.text_of("普陀山 Summer", ["山", "陀"]) == "山,陀"
    generator = np.random.default_rng(1)
    pictures = generator.normal(size=(PICTURES, H)).astype(np.float32)
    known = generator.normal(size=(2, 7, H)).astype(np.float32)
    entities = [Entity(str(n), f"e{n}", "entity", known[0, n], known[1, n]) for n in range(7)]
    for count in (0, 2, 7):
        context = ranker.context("山,陀", entities[:count])
        used = min(count, WIDTH)
        padded = torch.zeros(2, PICTURES, WIDTH, H)
        padded[:, :, :used] = torch.from_numpy(known[:, None, :used])
        text = torch.from_numpy(context.text).expand(PICTURES, -1)
        expected = published(torch.from_numpy(pictures), text, *padded, torch.full((PICTURES,), used))
        np.testing.assert_allclose(ranker.scores(pictures, context), expected.numpy(), rtol=1e-4, atol=1e-5)

    # Its own pictures' network may be compiled and measured here, under the digest of the recall model inside.
    inside = read_card(tmp_path / "model/recall")
    [part] = ranker.tunable_parts
    assert part.part == part_of(inside, "images")
    assert part.part.digest in digests_in(card)
    assert [module.key.part for module in ranker.compiled_modules] == ["image encoder"]

    # The same recall model in the registry's place: the ranker reads its vectors.
    second = fetch(f"siamese:{folder / 'ranker.ckpt'}", tmp_path / "second", {"recall": str(tmp_path / "model/recall")})
    recall = read_card(tmp_path / "model/recall")
    assert second.architecture.arguments["recall"] == recall.spec
    reader = ImageRanker(tmp_path / "second", device="cpu")
    assert reader.vectors_of == recall.spec
    assert (reader.tunable_parts, reader.compiled_modules) == ((), ())


def test_what_is_no_such_file_is_named(published: PublishedRanker, folder: Path, tmp_path: Path) -> None:
    source, options = f"siamese:{tmp_path / 'x.ckpt'}", {"vocabulary": str(folder / "vocab.txt")}
    tensors = dict(published.state_dict())

    def refused(change: dict[str, Tensor | None], error: type[Exception], message: str) -> None:
        changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        torch.save(changed, tmp_path / "x.ckpt")
        with pytest.raises(error, match=message):
            fetch(source, tmp_path / "model", options)
        assert not (tmp_path / "model/card.json").exists()

    weight, attention = tensors["linear4.weight"], "attention_layer.local_att.fc1.fc.3.bias"
    refused({"linear4.weight": None, "linear4.weights": weight}, JobError, r"tensor 'linear4\.weight' is missing")
    refused({attention: None, "fc3.bias": tensors[attention]}, JobError, f"tensor '{attention}' is missing")
    refused({"linear9.bias": weight}, JobError, r"tensor 'linear9\.bias' is not in the architecture")
    refused({"linear2.bias": torch.zeros(2)}, JobError, r"tensor 'score\.bias' has the shape \[2\]")
    stem = "align_model.image_model._conv_stem.weight"
    refused({stem: None}, JobError, "align_model: tensor 'image.network.conv_stem.weight' is missing")
    torch.save(tensors, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="does not hold the words of its BERT: give `--option vocabulary"):
        fetch(source, tmp_path / "model")
    torch.save({name: one for name, one in tensors.items() if "align" not in name}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"has no tensors behind 'align_model\.'"):
        fetch(source, tmp_path / "model", options)
