"""What a learner reads of its views: features of a frozen image encoder, or pixels for one that learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.fashion.encoding.views import Changes, View, ViewReader
from shopvision.training.pixels import PixelsToInput

if TYPE_CHECKING:
    from shopvision.fashion.encoding.features import ViewFeatures
    from shopvision.images import PictureDoor
    from shopvision.images.preprocessing import Preprocessing


class ViewInputs(ABC):
    """Inputs by the rows of views.

    Attributes:
        views: in the order of the rows.
        normalised: pixels on the device as the network wants them.
    """

    def __init__(self, views: Sequence[View], preprocessing: Preprocessing, device: torch.device) -> None:
        self.views = tuple(views)
        self._rows: Mapping[View, int] = {view: row for row, view in enumerate(views)}
        self.normalised = PixelsToInput(preprocessing, device)

    def rows_of(self, views: Sequence[View]) -> NDArray[np.int64]:
        """Where these views are."""
        return np.array([self._rows[view] for view in views], np.int64)

    @abstractmethod
    def plain(self, rows: NDArray[np.int64]) -> Tensor:
        """Views as they are: (n, d) features or (n, H, W, 3) uint8 pixels."""

    @abstractmethod
    def pairs(
        self,
        anchors: NDArray[np.int64],
        positives: NDArray[np.int64],
        generator: np.random.Generator,
        share: slice,
    ) -> tuple[Tensor, Tensor]:
        """Changed views of a step's pairs.

        Args:
            anchors: rows of views of the whole step.
            positives: likewise.
            generator: of the changes.
            share: the pairs of this process, which alone are read.
        """


class FeatureInputs(ViewInputs):
    """Features of views and of changes of them, all computed before."""

    def __init__(
        self, views: Sequence[View], preprocessing: Preprocessing, device: torch.device, features: ViewFeatures
    ) -> None:
        """``features`` of the same views."""
        super().__init__(views, preprocessing, device)
        self._features = features
        self._variants = features.rows.shape[1]

    def plain(self, rows: NDArray[np.int64]) -> Tensor:
        """See ``ViewInputs``."""
        return self._features.take(rows)

    def pairs(
        self,
        anchors: NDArray[np.int64],
        positives: NDArray[np.int64],
        generator: np.random.Generator,
        share: slice,
    ) -> tuple[Tensor, Tensor]:
        """See ``ViewInputs``; of one view the two variants differ."""
        first = generator.integers(self._variants, size=len(anchors))
        second = generator.integers(self._variants, size=len(anchors))
        if self._variants > 1:
            further = (first + 1 + generator.integers(self._variants - 1, size=len(anchors))) % self._variants
            second = np.where(anchors == positives, further, second)
        return self._features.take(anchors[share], first[share]), self._features.take(positives[share], second[share])


class PixelInputs(ViewInputs):
    """Pixels of views, read when they are needed and changed anew each time."""

    def __init__(
        self,
        views: Sequence[View],
        preprocessing: Preprocessing,
        device: torch.device,
        door: PictureDoor,
        changes: Changes,
    ) -> None:
        """Read through ``door``, and change by ``changes``."""
        super().__init__(views, preprocessing, device)
        self._reader, self._changes = ViewReader(door, preprocessing), changes

    def plain(self, rows: NDArray[np.int64]) -> Tensor:
        """See ``ViewInputs``."""
        return self._reader.read([self.views[row] for row in rows])

    def pairs(
        self,
        anchors: NDArray[np.int64],
        positives: NDArray[np.int64],
        generator: np.random.Generator,
        share: slice,
    ) -> tuple[Tensor, Tensor]:
        """See ``ViewInputs``."""
        rows = np.stack([anchors, positives])
        changes = [[self._changes.draw(generator) for _ in range(len(anchors))] for _ in rows]
        own = [view for side in rows for view in side[share]]
        pixels = self._reader.read([self.views[row] for row in own], [one for side in changes for one in side[share]])
        count = len(own) // 2
        return pixels[:count], pixels[count:]
