"""torchvision's FCOS in two steps: pictures to numbers, which can be compiled, and numbers to boxes, which cannot.

FCOS: Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection". torchvision takes each level of each
picture for itself, and boxes of any score: many small steps, which took as long as a sixth of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, clip_boxes_to_image

from shopvision.fashion.detection.regions import Boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

# Pixels of the picture by one of each feature map that the pyramid is built on; two coarser ones are added on top.
STRIDES = (8, 16, 32)
COARSER = 2


class PyramidCore(nn.Module):
    """Pixels -> what the head says of each of the m places of all feature maps.

    (n, H, W, 3) uint8 and (n, 2) int64, height and width of what is picture -> logits (n, m, classes), distances to the
    sides of a box (n, m, 4), centredness (n, m, 1).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Share backbone and head.

        Args:
            backbone: pictures (n, 3, H, W) -> feature maps by name.
            head: of FCOS.
            mean: per channel, of values in 0..1.
            std: likewise.
        """
        super().__init__()
        self.backbone, self.head = backbone, head
        weight = next(head.parameters())
        self.dtype = weight.dtype
        means, stds = (torch.tensor(values, dtype=torch.float32, device=weight.device) for values in (mean, std))
        self.register_buffer("scale", 1.0 / (255.0 * stds))
        self.register_buffer("shift", -means / stds)

    def forward(self, pixels: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        count, height, width, channels = pixels.shape
        # In rows of pixels: arithmetic along the last axis of 3 channels would run unvectorised.
        rows = pixels.reshape(count, height, width * channels).to(torch.float32)
        rows = rows * self.scale.repeat(width) + self.shift.repeat(width)  # type: ignore[operator] # buffers are tensors
        down = torch.arange(height, device=pixels.device) < size[:, :1]
        along = torch.arange(width * channels, device=pixels.device) < channels * size[:, 1:]
        rows = (rows * (down[:, :, None] & along[:, None, :])).to(self.dtype)
        # A view: pictures lie in memory as channels_last wants them.
        images = rows.view(count, height, width, channels).permute(0, 3, 1, 2)
        found = self.head(list(self.backbone(images).values()))
        return found["cls_logits"], found["bbox_regression"], found["bbox_ctrness"]


class PyramidFcos(FCOS):  # type: ignore[misc] # torchvision is untyped
    """FCOS whose numbers may come from elsewhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._anchors: dict[tuple[tuple[int, int], torch.device], tuple[Tensor, Tensor]] = {}

    def found(
        self, numbers: Sequence[Tensor], shape: tuple[int, int], sizes: Sequence[tuple[int, int]], least: float
    ) -> list[Boxes | None]:
        """The boxes that torchvision makes of a head's numbers, in shares of the pictures.

        Of each level the best ``topk_candidates`` count, doubles of one class by ``nms_thresh`` are left out, and the
        best ``detections_per_img`` stay. All that is decided by what is better, so lower boxes change nothing.

        Args:
            numbers: from ``PyramidCore``.
            shape: (H, W) of the pictures, filled up.
            sizes: (height, width) of what is picture.
            least: boxes must have a score above it.

        Returns:
            The best first; None where not all numbers are finite.
        """
        finite = torch.stack([values.isfinite().flatten(1).all(1) for values in numbers]).all(0).tolist()
        logits, distances, centredness = (values.float() for values in numbers)
        scores = (logits.sigmoid() * centredness.sigmoid()).sqrt()
        anchors, ends = self._anchors_of(shape, logits.device)
        results: list[Boxes | None] = []
        for number, size in enumerate(sizes):
            places, labels = torch.where(scores[number] > least)
            best = scores[number, places, labels]
            if len(best) > self.topk_candidates:
                kept = self._best_of_levels(best, torch.bucketize(places, ends, right=True), len(ends))
                places, labels, best = places[kept], labels[kept], best[kept]
            boxes = self.box_coder.decode(distances[number, places], anchors[places])
            boxes = clip_boxes_to_image(boxes, size)
            kept = batched_nms(boxes, best, labels, self.nms_thresh)[: self.detections_per_img]
            scale = torch.tensor([*size[::-1], *size[::-1]], device=boxes.device)
            results.append(Boxes(boxes[kept] / scale, labels[kept], best[kept]) if finite[number] else None)
        return results

    def _best_of_levels(self, scores: Tensor, level: Tensor, levels: int) -> Tensor:
        """Places of the best ``topk_candidates`` of each level."""
        kept = []
        for number in range(levels):
            (places,) = torch.where(level == number)
            kept.append(places[scores[places].topk(min(self.topk_candidates, len(places))).indices])
        return torch.cat(kept)

    def _anchors_of(self, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Anchors (m, 4) of pictures of ``shape``, and where each level ends among them."""
        key = (shape, device)
        if key not in self._anchors:
            maps = [(shape[0] // stride, shape[1] // stride) for stride in STRIDES]
            for _ in range(COARSER):
                maps.append((-(-maps[-1][0] // 2), -(-maps[-1][1] // 2)))
            levels = [torch.zeros(1, 1, *size, device=device) for size in maps]
            pictures = ImageList(torch.zeros(1, 1, *shape, device=device), [shape])
            (anchors,) = self.anchor_generator(pictures, levels)
            ends = torch.tensor([height * width for height, width in maps], device=device).cumsum(0)
            self._anchors[key] = anchors, ends
        return self._anchors[key]
