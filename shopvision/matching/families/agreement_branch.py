"""What a network makes of the statements of two items about each other, by itself or beside an encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WIDTH = 64
# Of what is learnt before the first step: full batches of at most so many pairs, which takes seconds.
MOST_PAIRS = 20_000
STEPS = 300
LR, WEIGHT_DECAY, WARMUP = 0.01, 1.0, 20
_RAREST = 0.05  # the root mean square below which a feature is too rarely known to be stretched further


class AgreementBranch(nn.Module):
    """Log-odds from agreement features: two hidden layers, because statements count by what else is stated.

    Features are divided by their root mean square over the training pairs and never shifted, so that what is unknown
    stays 0. What no training pair states counts for nothing: else the random weights that nothing had changed would
    speak of every other item's price once offers without prices were learnt from.

    Attributes:
        scale: (k,) what they are divided by.
    """

    scale: Tensor

    def __init__(self, features: int, *, dropout: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(features))
        self.layers = nn.Sequential(
            nn.Linear(features, WIDTH), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(WIDTH, 1),
        )  # fmt: skip

    def forward(self, agreement: Tensor) -> Tensor:
        """(n, k) -> log-odds (n,)."""
        logits: Tensor = self.layers(agreement.to(self.scale.dtype) / self.scale)
        return logits[:, 0]

    def learn(self, agreement: Tensor, labels: Tensor) -> None:
        """Fit scale and layers on training pairs: (n, k), (n,) 1 for the same product, both on the CPU.

        The steps of an encoder are too few and too small for random layers to learn this in (measured: F1 0.83 instead
        of 0.91 on Abt-Buy's validation pairs). The same weights in every process: every one does it from one seed.
        """
        device = self.scale.device
        self.cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            chosen = torch.randperm(len(labels))[:MOST_PAIRS]
            self._learn(agreement[chosen], labels[chosen].float())
        self.to(device)

    def _learn(self, agreement: Tensor, labels: Tensor) -> None:
        typical = agreement.square().mean(0).sqrt()
        self.scale.copy_(typical.clamp(min=_RAREST))
        with torch.no_grad():
            self.get_parameter("layers.0.weight")[:, typical == 0] = 0.0
        optimizer = torch.optim.AdamW(self.layers.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
        training = self.training
        self.train()
        for step in range(STEPS):
            rate = LR * min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / STEPS)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(self(agreement), labels)
            torch.autograd.backward([loss])
            optimizer.step()
        optimizer.zero_grad()
        self.train(training)
