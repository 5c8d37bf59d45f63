"""Two processes with half the batch each have the gradients of one process with all of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import JobError
from shopvision.selection.clik.losses import (
    image_ranking_loss,
    topic_matching_loss,
    total_loss,
)
from shopvision.selection.clik.model import Clik, ImageTower, TextTower
from shopvision.training.distributed import gather_with_local_gradients

PAIRS, GROUPS, CANDIDATES, WORLD = 6, 4, 3, 2
WORDS, WIDTH, DIMENSION = 30, 16, 8


class Words(nn.Module):
    """Stands for a transformers encoder, which would take each new process ten seconds to import."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(type_vocab_size=2)
        self.words, self.types, self.mix = nn.Embedding(WORDS, WIDTH), nn.Embedding(2, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> SimpleNamespace:
        hidden = torch.tanh(self.mix(self.words(input_ids) + self.types(token_type_ids)))
        return SimpleNamespace(last_hidden_state=hidden * attention_mask.unsqueeze(-1))


def batch() -> tuple[TokenBatch, Tensor, TokenBatch, Tensor]:
    """All topics, their pictures, the groups' topics and pictures; float64 tells a wrong factor from rounding."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(1, WORDS, (PAIRS, 7), generator=generator)
    mask = (torch.arange(7) < torch.randint(3, 8, (PAIRS, 1), generator=generator)).long()
    tokens = TokenBatch(ids * mask, mask, torch.randint(0, 2, (PAIRS, 7), generator=generator) * mask)
    pictures = torch.randn(PAIRS, 3, 8, 8, generator=generator, dtype=torch.float64)
    candidates = torch.randn(GROUPS, CANDIDATES, 3, 8, 8, generator=generator, dtype=torch.float64)
    return tokens, pictures, tokens.rows(torch.tensor([1, 4, 0, 2])), candidates


def model() -> Clik:
    torch.manual_seed(1)
    eye = nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Clik(
        TextTower(Words(), WIDTH, DIMENSION, pooling="mean"), ImageTower(eye, WIDTH, DIMENSION), bank_size=PAIRS
    ).double()


def step(clik: Clik, pairs: slice, groups: slice, world: int) -> None:
    """One training step's gradients, from this process's share of the batch."""
    topics, pictures, group_topics, candidates = batch()
    topic_vectors = gather_with_local_gradients(clik.txt_encoder(topics.rows(pairs)))
    image_vectors = gather_with_local_gradients(clik.img_encoder(pictures[pairs]))
    clik.replace_bank(image_vectors)
    own = candidates[groups]
    vectors = clik.img_encoder(own.flatten(0, 1)).view(*own.shape[:2], -1)
    compatibility = clik.compatibility(clik.txt_encoder(group_topics.rows(groups)), vectors)
    matching = topic_matching_loss(topic_vectors, image_vectors)
    total_loss(matching, image_ranking_loss(compatibility), world_size=world).backward()


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    clik = model()
    pairs, groups = PAIRS // WORLD, GROUPS // WORLD
    step(clik, slice(rank * pairs, (rank + 1) * pairs), slice(rank * groups, (rank + 1) * groups), WORLD)
    for parameter in clik.parameters():  # what DistributedDataParallel does
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= WORLD
    gradients = {name: parameter.grad for name, parameter in clik.named_parameters()}
    torch.save({"gradients": gradients, "bank": clik.memory_bank}, f"{folder}/rank-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=WORLD)
    joint = model()
    step(joint, slice(PAIRS), slice(GROUPS), 1)
    for rank in range(WORLD):
        found = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        assert torch.allclose(found["bank"], joint.memory_bank, atol=1e-6)
        for name, parameter in joint.named_parameters():
            largest = parameter.grad.abs().max().item()
            assert torch.allclose(found["gradients"][name], parameter.grad, atol=1e-9 + 1e-7 * largest), name
    reached = {name for name, parameter in joint.named_parameters() if parameter.grad.abs().max() > 1e-6}
    for part in ("txt_encoder.enc.", "txt_encoder.proj.", "img_encoder.enc.", "img_encoder.proj.", "agg."):
        assert any(name.startswith(part) for name in reached)


def test_a_share_alone_does_not_fill_the_bank() -> None:
    with pytest.raises(JobError, match="holds 6 pictures, the step brings 3"):
        step(model(), slice(3), slice(2), 1)
