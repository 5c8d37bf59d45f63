"""A picture as a sequence of states: the whole of it, and the cells of a grid over it.

Letters in shapes: n pictures, g cells along an edge, S = 1 + g * g tokens, C features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.image_networks import build_image
from shopvision.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shopvision.images.preprocessing import Preprocessing
    from shopvision.models.card import Architecture


class PictureTokens(nn.Module):
    """An image network, read before it pools.

    Attributes:
        image: of timm: a convolutional network or a vision transformer, without classifier.
        grid: g.
        width: C.
        count: S.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image: nn.Module, preprocessing: Preprocessing, grid: int) -> None:
        """Read ``image``; pixels are normalised with mean and standard deviation of ``preprocessing``.

        Raises:
            UserError: the network cannot be read before it pools.
        """
        super().__init__()
        if not hasattr(image, "forward_features") or not hasattr(image, "num_features"):
            raise UserError("model.image gives no features of parts of a picture: name a network of timm.")
        self.image, self.grid, self.count = image, grid, 1 + grid * grid
        self.width: int = image.num_features  # type: ignore[assignment] # timm sets a number
        self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 pixels, or what ``flat`` made of them before -> (n, S, C), zeros without a picture."""
        if pictures.ndim == 2:
            return pictures.view(len(pictures), self.count, self.width)
        there = pictures.flatten(1).any(1).view(-1, 1, 1)
        normalised = (pictures.to(self.mean.dtype) / 255 - self.mean) / self.std
        return self._tokens(normalised.permute(0, 3, 1, 2)) * there

    def flat(self, pixels: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 -> (n, S * C), as features of a network that stays as it is are kept."""
        tokens: Tensor = self(pixels)
        return tokens.flatten(1)

    def _tokens(self, images: Tensor) -> Tensor:
        features: Tensor = self.image.forward_features(images)  # type: ignore[operator] # timm is untyped
        whole = None
        if features.ndim == 3:  # a transformer's: prefix tokens, then patches by row
            prefix: int = self.image.num_prefix_tokens  # type: ignore[assignment] # as above
            whole = features[:, :1] if prefix else None
            rows, columns = self.image.patch_embed.grid_size  # type: ignore[union-attr,misc] # as above
            patches = features[:, prefix:].transpose(1, 2)
            features = patches.reshape(*patches.shape[:2], rows, columns)
        elif features.shape[1] != self.width:  # some keep their features last
            features = features.permute(0, 3, 1, 2)
        if whole is None:
            whole = features.mean((2, 3)).unsqueeze(1)
        cells = functional.adaptive_avg_pool2d(features, self.grid).flatten(2).transpose(1, 2)
        return torch.cat([whole, cells], dim=1)


def build_picture_tokens(image: Architecture, preprocessing: Preprocessing | None, grid: int) -> PictureTokens:
    """Weights still random.

    Raises:
        UserError: there is no such network, it cannot be read before it pools, or there is no preprocessing.
    """
    if preprocessing is None:
        raise UserError("A model of pictures needs their preprocessing.")
    return PictureTokens(build_image(image), preprocessing, grid)


def grid_boxes(grid: int) -> Sequence[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of the S tokens, in shares of the picture: the whole, then the cells by row."""
    steps = [number / grid for number in range(grid)]
    cells = [(left, top, left + 1 / grid, top + 1 / grid) for top in steps for left in steps]
    return [(0.0, 0.0, 1.0, 1.0), *cells]


def of_regions(tokens: Tensor, boxes: Tensor) -> Tensor:
    """Features of regions: means of the cells, weighed by how much of the region lies in each.

    Args:
        tokens: (n, S, C) of a grid.
        boxes: (n, R, 4) left, top, right, bottom in shares of the picture.

    Returns:
        (n, R, C); zeros of a box without area.
    """
    cells = tokens[:, 1:]
    grid = round(cells.shape[1] ** 0.5)
    edges = torch.linspace(0, 1, grid + 1, device=boxes.device, dtype=boxes.dtype)

    def shares(low: Tensor, high: Tensor) -> Tensor:
        """(n, R) -> (n, R, g): how much of a side lies in each column, or row."""
        return (torch.minimum(high[..., None], edges[1:]) - torch.maximum(low[..., None], edges[:-1])).clamp(min=0)

    columns, rows = shares(boxes[..., 0], boxes[..., 2]), shares(boxes[..., 1], boxes[..., 3])
    areas = (rows[..., :, None] * columns[..., None, :]).flatten(2)
    weights = areas / areas.sum(2, keepdim=True).clamp(min=torch.finfo(areas.dtype).tiny)
    return torch.einsum("nrg,ngc->nrc", weights.to(cells.dtype), cells)


def has_picture(tokens: Tensor) -> Tensor:
    """(n, S, C) -> (n,) bool: whether there is a picture at all."""
    return tokens.detach().flatten(1).any(1)
