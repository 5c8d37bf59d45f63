"""The click ranker as a learner of ``shopvision.training.loop``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.errors import UserError
from shopvision.selection.click.bank import mean_picture
from shopvision.selection.click.config import ClickConfig
from shopvision.selection.click.evaluate import PairScores, measure_clicks
from shopvision.selection.click.losses import LossName, counts_loss, difference_loss, list_loss, margin_loss
from shopvision.selection.click.network import ClickNetwork
from shopvision.training.gradient_cache import GradientCache, micro_batches
from shopvision.training.learner import NetworkLearner
from shopvision.training.loop import step_seed
from shopvision.training.pixels import PixelReader
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.selection.click.preparation import Prepared
    from shopvision.training.distributed import Process

SCORED_AT_ONCE = 1024
PIXELS_AT_ONCE = 64

Rows = NDArray[np.int64]


class RankerModule(nn.Module):
    """What is trained: the network, and the image tower where it is tuned."""

    def __init__(self, network: ClickNetwork, tower: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.tower = tower


@dataclass(frozen=True)
class ClickBatch:
    """One process's share of a step.

    Attributes:
        items: (m,) rows of the pictures' items.
        pictures: features (m, d) float32, or pixels (m, H, W, 3) uint8; of pairs first all first ones, then all others.
        first_wins: (p,) bool of p = m / 2 pairs; None with lists.
        clicks: (p, 2) float32 of both pictures, NaN where nobody counted; None with lists.
        views: (p, 2) float32, how often they were shown; likewise.
        rates: (g, k) float32 of g items' pictures, in the order of ``pictures``; None with pairs.
        there: (g, k) bool, what of ``rates`` is no padding.
        share: pairs (items) of all processes together.
    """

    items: Rows
    pictures: Tensor
    first_wins: Tensor | None
    clicks: Tensor | None
    views: Tensor | None
    rates: Tensor | None
    there: Tensor | None
    share: int


class ClickLearner(NetworkLearner):
    """Trains the network on features of frozen towers, or an image tower with it.

    Attributes:
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        module: RankerModule,
        config: ClickConfig,
        *,
        loss: LossName,
        train: Prepared,
        valid: Prepared | None,
        pixels: PixelReader | None,
        preprocessing: Preprocessing,
        process: Process,
    ) -> None:
        """Train with ``loss`` on ``train``, validate on ``valid``; ``pixels`` reads pictures for a tuned tower.

        Raises:
            UserError: fewer pairs (items) than processes, or batch statistics in several processes.
        """
        super().__init__(module, config.train, process)
        self.module = module
        self._config, self._train, self._valid, self._pixels = config, train, valid, pixels
        self._loss = loss
        self._clicks_of_a_pair = float(train.data.comparisons.clicks.sum(axis=1).mean())
        self._lists = train.data.shown.by_item() if loss == "list" else []
        units = len(self._lists) if loss == "list" else len(train.data.comparisons)
        what = "items with two pictures" if loss == "list" else "pairs"
        if units < process.world:
            raise UserError(f"{units} {what} to train on, for {process.world} processes: give more.")
        if process.world > 1 and config.model.variant == "published":
            raise UserError(
                'The published network has batch statistics: train it in one process, or take variant = "cleaned".'
            )
        self._units = units
        # No process without a share of every step.
        self.steps_per_epoch = min(math.ceil(units / config.train.batch), units // process.world)
        mean, std = (torch.tensor(values, device=process.device) for values in (preprocessing.mean, preprocessing.std))
        self._scale, self._shift = (1.0 / (255.0 * std)).view(3, 1, 1), (-mean / std).view(3, 1, 1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network; the tower, where it is tuned."""
        train = self._config.train
        groups = [{"name": "network", "lr": train.lr, "params": list(self.module.network.parameters())}]
        if self.module.tower is not None:
            groups.append({"name": "tower", "lr": train.lr_tower, "params": list(self.module.tower.parameters())})
        return groups

    def begin_training(self) -> None:
        """As every learner, but the published network learns its batch statistics."""
        super().begin_training()
        self.module.network.attention.train()

    def batches(self, epoch: int) -> Iterator[ClickBatch]:
        """This process's share of every step, loaded ahead in a thread."""
        self._train = self._refreshed(self._train)
        self.begin_training()
        seed = step_seed(self._config.train.seed, epoch)
        order = np.random.default_rng(seed).permutation(self._units)
        steps = np.array_split(order, self.steps_per_epoch)
        return prefetch(lambda numbered: self._load(epoch, *numbered), enumerate(steps, start=1))

    def _load(self, epoch: int, number: int, units: Rows) -> ClickBatch:
        process, data = self.process, self._train.data
        generator = np.random.default_rng((self._config.train.seed, epoch, number))
        mine = units[process.rank :: process.world]
        if not self._lists:
            pairs = data.comparisons
            items = np.tile(pairs.items[mine], 2).astype(np.int64)
            pictures = np.concatenate([pairs.first[mine], pairs.second[mine]]).astype(np.int64)
            crops = generator.random((2 * len(units), 2))
            own = np.arange(2 * len(units)).reshape(2, -1)[:, process.rank :: process.world].ravel()
            wins, clicks, views = (
                torch.from_numpy(values[mine])
                for values in (pairs.first_wins, pairs.clicks.astype(np.float32), pairs.views.astype(np.float32))
            )
            return ClickBatch(items, self._pictures(pictures, crops[own]), wins, clicks, views, None, None, len(units))
        size = self._config.train.list_size
        drawn = [generator.permutation(self._lists[unit])[:size] for unit in units.tolist()]
        crops = generator.random((sum(map(len, drawn)), 2))
        starts = np.cumsum([0, *map(len, drawn)])
        chosen = range(process.rank, len(units), process.world)
        rows = [drawn[place] for place in chosen]
        own = np.concatenate([np.arange(starts[place], starts[place + 1]) for place in chosen])
        there = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.bool)
        for row, of_item in enumerate(rows):
            there[row, : len(of_item)] = True
        flat = np.concatenate(rows)
        rates = torch.zeros(there.shape)
        rates[there] = torch.from_numpy(data.shown.rates[flat].astype(np.float32))
        pictures = data.shown.pictures[flat].astype(np.int64)
        items = data.shown.items[flat].astype(np.int64)
        return ClickBatch(items, self._pictures(pictures, crops[own]), None, None, None, rates, there, len(units))

    def _pictures(self, pictures: Rows, crops: NDArray[np.float64] | None) -> Tensor:
        if self._pixels is None:
            return self._train.pictures.take(pictures)
        return self._pixels.read([self._train.data.pictures[row] for row in pictures.tolist()], crops)

    def gradients(self, batch: ClickBatch, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step; returns the loss, and the share of pairs in the right order."""
        cache = GradientCache(precision.autocast)
        if self._pixels is None:
            vectors = batch.pictures.to(self.process.device, non_blocking=True)
        else:
            parts = micro_batches(len(batch.pictures), self._config.train.micro_batch)
            vectors = cache.embed(self._tower_vectors, [batch.pictures[part] for part in parts])
        if batch.first_wins is not None:
            half = len(batch.items) // 2
            # Apart, as published: each side has its own batch statistics.
            first, second = (
                self._scores(self._train, batch.items[part], vectors[part], precision)
                for part in (slice(half), slice(half, None))
            )
            losses, wins = self._pair_losses(first, second, batch), batch.first_wins.to(self.process.device)
            right = ((first > second) == wins).float().sum()
        else:
            losses, right = self._list_losses(batch, vectors, precision)
        # Gradients are averaged over the processes, whose shares may differ by one.
        loss = losses.sum() * (self.process.world / batch.share)
        cache.backward(precision.scale(loss))
        return {"loss": losses.detach().mean(), "right": right.detach() / len(losses)}

    def _pair_losses(self, first: Tensor, second: Tensor, batch: ClickBatch) -> Tensor:
        if batch.first_wins is None or batch.clicks is None or batch.views is None:
            raise AssertionError("a batch has pairs or lists")
        wins, clicks, views = (
            values.to(self.process.device) for values in (batch.first_wins, batch.clicks, batch.views)
        )
        if self._loss == "counts":
            return counts_loss(first, second, clicks, views) / self._clicks_of_a_pair
        if self._loss == "margin":
            return margin_loss(first, second, wins, self._config.train.margin)
        return difference_loss(first, second, wins)

    def _list_losses(self, batch: ClickBatch, vectors: Tensor, precision: MixedPrecision) -> tuple[Tensor, Tensor]:
        if batch.rates is None or batch.there is None:
            raise AssertionError("a batch has pairs or lists")
        there, rates = batch.there.to(self.process.device), batch.rates.to(self.process.device)
        scores = torch.zeros_like(rates).masked_scatter(
            there, self._scores(self._train, batch.items, vectors, precision)
        )
        lowest = torch.finfo(scores.dtype).min
        best = scores.detach().masked_fill(~there, lowest).argmax(1)
        return list_loss(scores, rates, there), (best == rates.masked_fill(~there, -1.0).argmax(1)).float().sum()

    def _scores(self, prepared: Prepared, items: Rows, vectors: Tensor, precision: MixedPrecision) -> Tensor:
        device = self.process.device
        entities, counts = prepared.bank.features(items)
        texts = prepared.texts[torch.from_numpy(items)].to(device)
        with precision.autocast():
            scores: Tensor = self.module.network(vectors, texts, entities.to(device), counts.to(device))
        return scores.float()

    def _tower_vectors(self, pixels: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 -> (n, d) of unit length, on the device."""
        if self.module.tower is None:
            raise AssertionError("pixels are read for a tuned tower alone")
        moved = pixels.to(self.process.device, non_blocking=True)
        vectors: Tensor = self.module.tower(moved.permute(0, 3, 1, 2).float() * self._scale + self._shift)
        return vectors

    @torch.no_grad()
    def _refreshed(self, prepared: Prepared) -> Prepared:
        """With the entities as the tower sees them now; of a frozen tower nothing changes."""
        if self._pixels is None:
            return prepared
        self.module.eval()
        bank = prepared.bank
        vectors = self._vectors([uri for facts in bank.facts for uri in facts.pictures]).cpu().numpy()
        pictures, start = torch.zeros_like(bank.pictures), 0
        for row, facts in enumerate(bank.facts):
            of_entity = vectors[start : start + len(facts.pictures)]
            pictures[row] = torch.from_numpy(mean_picture(of_entity, pictures.shape[1]))
            start += len(facts.pictures)
        return replace(prepared, bank=replace(bank, pictures=pictures))

    def _vectors(self, uris: list[str]) -> Tensor:
        reader = self._pixels
        if reader is None:
            raise AssertionError("pixels are read for a tuned tower alone")
        return self.rows_of(
            len(uris), self.module.network.arguments.dimension, lambda rows: reader.read(uris[rows], None),
            self._tower_vectors, at_once=self._config.train.micro_batch or PIXELS_AT_ONCE,
        )  # fmt: skip

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """How well the validation pairs are ordered."""
        if self._valid is None:
            return {}
        self.module.eval()
        valid = self._refreshed(self._valid)
        scores = self._pair_scores(valid)
        found = measure_clicks(valid.data, scores, resamples=0)
        return {name: metric.value for name, metric in found.items()}

    def _pair_scores(self, valid: Prepared) -> PairScores:
        used = valid.data.used_pictures()
        vectors = None
        if self._pixels is not None:
            vectors = torch.zeros(len(valid.data.pictures), self.module.network.arguments.dimension)
            vectors[torch.from_numpy(used)] = self._vectors([valid.data.pictures[row] for row in used.tolist()]).cpu()

        def score(items: Rows, pictures: Rows) -> NDArray[np.float32]:
            def load(rows: slice) -> tuple[Rows, Tensor]:
                chosen = pictures[rows]
                return items[rows], valid.pictures.take(chosen) if vectors is None else vectors[chosen]

            def encode(inputs: tuple[Rows, Tensor]) -> Tensor:
                of_items, of_pictures = inputs
                moved = of_pictures.to(self.process.device)
                precision = MixedPrecision(self._config.train.precision, self.process.device)
                return self._scores(valid, of_items, moved, precision).unsqueeze(1)

            found: NDArray[np.float32] = (
                self.rows_of(len(items), 1, load, encode, at_once=SCORED_AT_ONCE).squeeze(1).cpu().numpy()
            )
            return found

        return PairScores.of(valid.data, score)
