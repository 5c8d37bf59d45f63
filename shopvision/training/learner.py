"""What every recipe's learner needs: modes, frozen parts, checkpoints' tensors, rows shared out among processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shopvision.training.config import FitConfig
from shopvision.training.distributed import Process
from shopvision.training.gradient_cache import micro_batches
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch


class NetworkLearner:
    """The part of ``shopvision.training.loop.Learner`` that does not depend on what is learnt.

    Attributes:
        network: what is trained; it lies on the process's device.
        process: this process.
    """

    def __init__(
        self, network: nn.Module, config: FitConfig, process: Process, *, frozen: Sequence[nn.Module] = ()
    ) -> None:
        """Train ``network`` without its parts ``frozen``, which get no gradient and stay in evaluation mode."""
        self.network, self.process = network, process
        self._precision, self._frozen = config.precision, tuple(frozen)
        for part in self._frozen:
            part.requires_grad_(requires_grad=False)

    def tensors(self) -> dict[str, Tensor]:
        """The network's tensors without those that stay as they are."""
        kept = {id(weight) for weight in self.network.parameters() if not weight.requires_grad}
        kept |= {id(buffer) for part in self._frozen for buffer in part.buffers()}
        return {
            name: tensor for name, tensor in self.network.state_dict(keep_vars=True).items() if id(tensor) not in kept
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``tensors`` once gave."""
        self.network.load_state_dict({**self.network.state_dict(), **tensors})

    def begin_training(self) -> None:
        """Training mode, but for frozen parts and batch norm.

        A vector must not depend on the others of its batch, which would also tell a contrastive loss who belongs
        together.
        """
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of all of them
                module.eval()
        for part in self._frozen:
            part.eval()

    @torch.no_grad()
    def rows_of(
        self,
        count: int,
        width: int,
        load: Callable[[slice], Any],
        encode: Callable[[Any], Tensor],
        *,
        at_once: int,
    ) -> Tensor:
        """Rows (count, width) float32 of an evaluation: every process computes some, all get all.

        Args:
            count: how many.
            width: numbers of a row.
            load: what some rows are computed from; called ahead in a thread.
            encode: what it gives -> (rows, width).
            at_once: rows of one call.
        """
        process = self.process
        result = torch.zeros(count, width, device=process.device)
        precision = MixedPrecision(self._precision, process.device)
        mine = micro_batches(count, at_once)[process.rank :: process.world]
        for rows, inputs in zip(mine, prefetch(load, mine), strict=True):
            with precision.autocast():
                result[rows] = encode(inputs).float()
        return process.total(result)
